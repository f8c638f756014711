"""Deblurring as K3DN's text words it: a queried symmetric blur kernel, inverted in the Fourier domain.

The blur model of a window is b = k * s with a left-right symmetric kernel k, so F(s) = F(b) / F(k). The
released network never divides by a blur spectrum at test time (`KernelSetDeblur`); this module does, with the
noise-to-signal ratio that makes the division stable, and reblurs by convolving with the same kernel.
"""
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.channel_matrix import InvertibleChannelMatrix
from k3dn_plugin.layers.filters import transfer_function
from k3dn_plugin.layers.residual import at_least_float32, without_autocast
from k3dn_plugin.layers.symmetric import mirror
from k3dn_plugin.layers.windows import partition_with_margin, unpartition
from k3dn_plugin.modules.disparity.feature import DisparityFeature, check_images
from k3dn_plugin.registry import MODULES


def wiener_inverse(response: torch.Tensor, noise_to_signal: torch.Tensor) -> torch.Tensor:
    """Compute (1 + r) conj(H) / (|H|^2 + r): (N, 1, h, w) responses and (C,) ratios -> (N, C, h, w).

    The factor 1 + r gives frequency zero, where a blur kernel has H = 1, a gain of one: flat regions keep
    their value, and where there is no blur nothing changes.
    """
    ratio = noise_to_signal[:, None, None]
    return (1 + ratio) * response.conj() / (response.abs().square() + ratio)


def taper_edges(windows: torch.Tensor, response: torch.Tensor, margin: int) -> torch.Tensor:
    """Blend (N, C, h, w) windows within their margin into their own periodic blur, the more the nearer to the edge.

    The transform is periodic, and an inverse filter rings where opposite edges do not meet: with a small ratio r
    from there into the whole window. What is the blur of something periodic has no such edge.

    Args:
        windows: with `margin` more cells on every side than is kept.
        response: (N, 1, h, w/2 + 1) spectra of the kernels.
        margin: cells over which the blend fades out.
    """
    weight = torch.ones((), dtype=windows.dtype, device=windows.device)
    steps = (torch.arange(margin, dtype=windows.dtype, device=windows.device) + 0.5) / margin
    fade = (1 - torch.cos(math.pi * steps)) / 2
    for axis in (-2, -1):
        line = torch.cat([fade, fade.new_ones(windows.shape[axis] - 2 * margin), fade.flip(0)])
        weight = weight * (line[:, None] if axis == -2 else line)
    periodic = torch.fft.irfft2(torch.fft.rfft2(windows) * response, s=windows.shape[-2:])
    return weight * windows + (1 - weight) * periodic


@MODULES.register_module()
class WienerDeblur(nn.Module):
    """Window-wise Wiener deconvolution of features with queried kernels (K3DN, disparity-aware deblur module,
    as worded in the paper).

    Each block holds a set of kernels that are symmetric about their middle column, positive and of unit sum.
    A window's kernel k is their mixture under softmax weights that its disparity vector gives. Between an
    invertible mixing M of the channels and its inverse, the features are divided by the spectrum of k, or,
    to reblur, convolved with k:

        deblur: y = M^-1 F^-1( W F(M x) ),  W = (1 + r) conj(F(k)) / (|F(k)|^2 + r)
        reblur: y = M^-1 ( k * M x )

    so that one undoes the other up to the noise-to-signal ratio r, whatever has been learned. It starts
    close to the identity: the query prefers the narrowest kernels.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another.
        kernels: in the set of one block.
        kernel_size: odd side of a kernel, at the resolution of the features (1/8 of the image).
        noise_to_signal: initial ratio r of every channel; learned, always positive.

    Raises:
        OptionError: `kernel_size` is even, or `noise_to_signal` is not positive.
    """

    reversible = True

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 4, kernels: int = 64,
                 kernel_size: int = 9, noise_to_signal: float = 0.05):
        super().__init__()
        if kernel_size % 2 == 0 or noise_to_signal <= 0:
            raise OptionError("WienerDeblur: expected an odd kernel_size and a positive noise_to_signal, "
                              f"found {kernel_size} and {noise_to_signal}")
        self.blocks = nn.ModuleList(
            WienerBlock(channels=channels, vector_size=vector_size, kernels=kernels, kernel_size=kernel_size,
                        noise_to_signal=noise_to_signal) for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Deblur (B, C, H, W) features."""
        return self._run(features, disparity, self.blocks, reverse=False)

    def reverse(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Reblur (B, C, H, W) features of the sharp image: the same kernels, the blocks in opposite order."""
        return self._run(features, disparity, reversed(self.blocks), reverse=True)

    def _run(self, features: torch.Tensor, disparity: DisparityFeature, blocks: Iterable[nn.Module], *,
             reverse: bool) -> torch.Tensor:
        check_images(features, disparity)
        # Spectra need full precision: most devices have no half-precision FFT.
        with without_autocast(features):
            x = at_least_float32(features)
            for block in blocks:
                x = block(x, disparity, reverse=reverse)
        return x.to(features.dtype)


class WienerBlock(nn.Module):
    """One kernel set with its query, ratio and channel mixing; see `WienerDeblur`."""

    def __init__(self, *, channels: int, vector_size: int, kernels: int, kernel_size: int,
                 noise_to_signal: float):
        super().__init__()
        self.logits = nn.Parameter(gaussian_logits(kernels, kernel_size))
        self.query = nn.Linear(vector_size, kernels)
        self.log_noise_to_signal = nn.Parameter(torch.full((channels,), noise_to_signal).log())
        self.mixing = InvertibleChannelMatrix(channels=channels)
        with torch.no_grad():
            # From the narrowest kernel to the widest: a blur that no data has asked for is not inverted.
            self.query.bias.copy_(torch.linspace(0, -8, kernels))

    def kernel_set(self) -> torch.Tensor:
        """(K, k, k), each symmetric about its middle column, positive, of unit sum."""
        logits = mirror(at_least_float32(self.logits))
        return logits.flatten(1).softmax(1).view_as(logits)

    def queried_kernels(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (N, k, k): the blur kernel of each window."""
        kernels = self.kernel_set()
        weights = F.linear(*map(at_least_float32, (vectors, self.query.weight, self.query.bias))).softmax(-1)
        return (weights @ kernels.flatten(1)).view(-1, *kernels.shape[1:])

    def forward(self, x: torch.Tensor, disparity: DisparityFeature, *, reverse: bool = False) -> torch.Tensor:
        """Deblur, or reblur, (B, C, H, W) features in float32 or float64."""
        x = F.conv2d(x, self.mixing.matrix()[..., None, None])
        kernels = self.queried_kernels(disparity.vectors)
        # The transform is periodic. A margin of real neighbors, cropped again, keeps a window's left edge
        # out of its right one, and lets the blur of a window reach into the next as it does in the image.
        margin = kernels.shape[-1] - 1
        windows = partition_with_margin(x, disparity.grid, margin)
        size = windows.shape[-2:]
        response = transfer_function(kernels, size)[:, None]
        if reverse:
            factor = response
        else:
            ratio = at_least_float32(self.log_noise_to_signal).exp()
            factor = wiener_inverse(response, ratio)
            windows = taper_edges(windows, response, margin)
        filtered = torch.fft.irfft2(torch.fft.rfft2(windows) * factor, s=size)
        x = unpartition(filtered[..., margin:-margin or None, margin:-margin or None], disparity.grid)
        return F.conv2d(x, self.mixing.inverse()[..., None, None])


def gaussian_logits(kernels: int, kernel_size: int) -> torch.Tensor:
    """Logits of Gaussians from nearly a point to about the kernel's size: left half with middle column.

    A set that starts with every width gives the query something to choose from. The widths grow by equal
    factors, so that many of them are narrow: most windows of a photograph are in focus.
    """
    half = kernel_size // 2
    offsets = torch.arange(kernel_size, dtype=torch.float32) - half
    squares = offsets[:, None] ** 2 + offsets[None, :half + 1] ** 2
    widths = torch.logspace(math.log10(0.2), math.log10(max(half / 2, 0.4)), kernels)
    # No tap starts out of the gradient's reach.
    return (-squares / (2 * widths[:, None, None] ** 2)).clamp(min=-12)
