"""Deblurring as K3DN's text words it: a queried symmetric blur kernel, inverted in the Fourier domain.

The blur model of a window is b = k * s with a left-right symmetric kernel k, so F(s) = F(b) / F(k). The
released network never divides by a blur spectrum at test time (`KernelSetDeblur`); this module does, with the
noise-to-signal ratio that makes the division stable, and reblurs by convolving with the same kernel.
"""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.disparity.feature import DisparityFeature, check_images
from k3dn_plugin.modules.kernels.symmetric import mirror
from k3dn_plugin.modules.windows import partition, unpartition
from k3dn_plugin.registry import MODULES


def transfer_function(kernels: torch.Tensor, size) -> torch.Tensor:
    """One-sided spectra (N, H, W/2 + 1) of (N, k, k) kernels whose anchor is the middle tap."""
    height, width = size
    half = kernels.shape[-1] // 2
    padded = F.pad(kernels, (0, width - kernels.shape[-1], 0, height - kernels.shape[-2]))
    return torch.fft.rfft2(padded.roll((-half, -half), (-2, -1)))


def wiener_inverse(response: torch.Tensor, noise_to_signal: torch.Tensor) -> torch.Tensor:
    """conj(H) / (|H|^2 + r): (N, h, w) responses and (C,) ratios -> (N, C, h, w)."""
    response = response[:, None]
    return response.conj() / (response.abs().square() + noise_to_signal[:, None, None])


@MODULES.register_module()
class WienerDeblur(nn.Module):
    """Window-wise Wiener deconvolution of features with queried kernels (K3DN, disparity-aware deblur module,
    as worded in the paper).

    Each block holds a set of kernels that are symmetric about their middle column, positive and of unit sum. A
    window's kernel is their mixture under softmax weights that its disparity vector gives; features are
    mixed by a 1x1 convolution, divided by the kernel's spectrum, and mixed back:

        y = x + after(inverse(before(x)) - before(x))

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

    def _run(self, features, disparity, blocks, *, reverse):
        check_images(features, disparity)
        windows = partition(features, disparity.grid)
        for block in blocks:
            windows = block(windows, disparity.vectors, reverse=reverse)
        return unpartition(windows, disparity.grid)


class WienerBlock(nn.Module):
    """One kernel set with its query, ratio and channel mixtures; see `WienerDeblur`."""

    def __init__(self, *, channels: int, vector_size: int, kernels: int, kernel_size: int,
                 noise_to_signal: float):
        super().__init__()
        self.logits = nn.Parameter(gaussian_logits(kernels, kernel_size))
        self.query = nn.Linear(vector_size, kernels)
        self.log_noise_to_signal = nn.Parameter(torch.full((channels,), noise_to_signal).log())
        self.before = nn.Conv2d(channels, channels, 1, bias=False)
        self.after = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.before.weight)
        nn.init.dirac_(self.after.weight)

    def kernel_set(self) -> torch.Tensor:
        """(K, k, k), each symmetric about its middle column, positive, of unit sum."""
        logits = mirror(self.logits)
        return logits.flatten(1).softmax(1).view_as(logits)

    def queried_kernels(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, k, k): the blur kernel of each window."""
        kernels = self.kernel_set()
        return (self.query(vectors).softmax(-1) @ kernels.flatten(1)).view(-1, *kernels.shape[1:])

    def forward(self, windows: torch.Tensor, vectors: torch.Tensor, *, reverse: bool = False) -> torch.Tensor:
        """Deblur, or reblur, (N, C, h, w) windows."""
        x = self.before(windows)
        # Spectra need their full precision: half-precision FFTs do not exist on most devices.
        with torch.autocast(windows.device.type, enabled=False):
            x = x.to(self.logits.dtype)
            kernels = self.queried_kernels(vectors.to(self.logits.dtype))
            filtered = self._filter(x, kernels, reverse)
        return windows + self.after(filtered - x)

    def _filter(self, x, kernels, reverse):
        # The transform is periodic: reflected borders keep a window's left edge out of its right one.
        margins = [min(kernels.shape[-1] - 1, side - 1) for side in x.shape[-2:]]
        padded = F.pad(x, (margins[1], margins[1], margins[0], margins[0]), mode="reflect")
        size = [max(side, kernels.shape[-1]) for side in padded.shape[-2:]]
        response = transfer_function(kernels, size)
        factor = response[:, None] if reverse else wiener_inverse(response, self.log_noise_to_signal.exp())
        filtered = torch.fft.irfft2(torch.fft.rfft2(padded, s=size) * factor, s=size)
        return filtered[..., margins[0]:margins[0] + x.shape[-2], margins[1]:margins[1] + x.shape[-1]]


def gaussian_logits(kernels: int, kernel_size: int) -> torch.Tensor:
    """Logits of Gaussians from nearly a point to about the kernel's size: left half with middle column.

    A set that starts with every width gives the query something to choose from.
    """
    half = kernel_size // 2
    offsets = torch.arange(kernel_size, dtype=torch.float32) - half
    squares = offsets[:, None] ** 2 + offsets[None, :half + 1] ** 2
    widths = torch.linspace(0.3, max(half / 2, 0.4), kernels)
    return -squares / (2 * widths[:, None, None] ** 2)
