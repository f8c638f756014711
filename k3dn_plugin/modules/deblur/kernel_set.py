"""K3DN's deblur module as released: a set of symmetric kernels, queried by the disparity feature.

Deblurring mixes the responses of the kernels K; reblurring runs the same layers backwards with the
kernels that are read from the reciprocals of the same spectra, the inverse channel matrix and the
reciprocal query weights, so it has no parameter of its own. (The paper's F(K_rev) = 1 / F(K) holds for the
stored spectra. Both kernels are then cropped to k x k taps, mirrored and scaled to unit norm, so convolving
with one after the other is not the identity; how well one undoes the other is learned.)
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.channel_matrix import InvertibleChannelMatrix
from k3dn_plugin.layers.filters import filter_channels
from k3dn_plugin.layers.residual import SLOPE, at_least_float32, without_autocast
from k3dn_plugin.layers.symmetric import inverse_spectra, kernels_from_spectra
from k3dn_plugin.layers.windows import partition, unpartition
from k3dn_plugin.modules.disparity.feature import DisparityFeature, check_images
from k3dn_plugin.registry import MODULES

EPS = 1e-8


class KernelQuery(nn.Module):
    """Which kernels of the set explain the blur of each window (`docs/networks/k3dn.md`, section 5.3).

    Args:
        channels: C, kernels in the set.
        vector_size: D, length of a window's disparity vector.
        kernel_size: k, side of a kernel.
    """

    def __init__(self, *, channels: int, vector_size: int, kernel_size: int):
        super().__init__()
        self.summary = nn.Parameter(torch.zeros(channels, kernel_size, (kernel_size + 1) // 2))
        self.to_kernels = nn.Linear(vector_size, channels)
        self.to_vector = nn.Linear(channels, vector_size)
        self.logits = nn.Parameter(torch.randn(channels, vector_size))
        self.logits_bias = nn.Parameter(torch.ones(channels))
        for layer in (self.to_kernels, self.to_vector):
            nn.init.trunc_normal_(layer.weight, std=0.001)
            nn.init.zeros_(layer.bias)

    def forward(self, vectors: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """(N, D) vectors and (C, k, k) kernels -> (N, C) weights that sum to 1 over the kernels."""
        full = at_least_float32
        vectors = full(vectors)
        described = (full(self.summary) * kernels[..., :self.summary.shape[-1]]).sum((-2, -1))
        queried = F.linear(vectors, full(self.to_kernels.weight), full(self.to_kernels.bias)) * described
        correction = F.linear(queried, full(self.to_vector.weight), full(self.to_vector.bias))
        vectors = vectors + F.leaky_relu(correction, SLOPE)
        scale = 1 / math.sqrt(self.logits.shape[1])
        return F.linear(vectors, full(self.logits) * scale, full(self.logits_bias)).softmax(-1)


class KernelSetBlock(nn.Module):
    """One kernel set with its query and channel matrix (`docs/networks/k3dn.md`, section 5).

    Args:
        channels: C, feature channels and kernels in the set.
        vector_size: D, length of a window's disparity vector.
        kernel_size: odd side k of a kernel.
        spectrum_size: side of the real signal whose spectrum is stored, larger than `kernel_size`.
        truncate: the largest reciprocal query weight in the reblurring direction.
    """

    def __init__(self, *, channels: int, vector_size: int, kernel_size: int = 9, spectrum_size: int = 10,
                 truncate: float = 100.0):
        super().__init__()
        self.kernel_size = kernel_size
        self.truncate = truncate
        # Real and imaginary part in the last axis: optimizers and files handle real tensors best.
        self.spectra = nn.Parameter(torch.randn(channels, spectrum_size, spectrum_size // 2 + 1, 2))
        self.mixing = InvertibleChannelMatrix(channels=channels)
        self.query = KernelQuery(channels=channels, vector_size=vector_size, kernel_size=kernel_size)

    def kernels(self, *, reverse: bool = False) -> torch.Tensor:
        """Return (C, k, k): the deblurring kernels, or with `reverse` the reblurring ones."""
        spectra = torch.view_as_complex(at_least_float32(self.spectra))
        return kernels_from_spectra(inverse_spectra(spectra, EPS) if reverse else spectra,
                                    self.kernel_size, EPS)

    def forward(self, windows: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Deblur (N, C, h, w) windows, each with its own (N, D) vector."""
        kernels, mixing, weights = self._prepare(vectors, windows.dtype)
        x = F.leaky_relu(filter_channels(windows, kernels), SLOPE)
        x = weights * x
        return windows + F.leaky_relu(F.conv2d(x, mixing), SLOPE)

    def reverse(self, windows: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Reblur (N, C, h, w) windows: the operations of `forward` in the opposite order."""
        kernels, mixing, weights = self._prepare(vectors, windows.dtype, reverse=True)
        x = F.leaky_relu(weights * F.conv2d(windows, mixing), SLOPE)
        return windows + F.leaky_relu(filter_channels(x, kernels), SLOPE)

    def _prepare(self, vectors: torch.Tensor, dtype: torch.dtype, *,
                 reverse: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(C, 1, k, k) kernels, (C, C, 1, 1) channel matrix and (N, C, 1, 1) query weights in `dtype`."""
        # Reciprocals, matrix inverse and softmax lose too much in half precision; they are small.
        with without_autocast(vectors):
            kernels = self.kernels()
            weights = self.query(vectors, kernels)
            if reverse:
                weights = (1 / (weights + EPS)).clamp(0, self.truncate)
                weights = weights / torch.sqrt(weights.square().sum(1, keepdim=True) + EPS)
                kernels, mixing = self.kernels(reverse=True), self.mixing.inverse()
            else:
                mixing = self.mixing.matrix()
        return (kernels[:, None].to(dtype), mixing[..., None, None].to(dtype),
                weights[..., None, None].to(dtype))


@MODULES.register_module()
class KernelSetDeblur(nn.Module):
    """Window-wise deblurring with queried kernel sets (K3DN, disparity-aware deblur module).

    Every block has its own set of C kernels; all are queried by the same disparity vectors. Windows are
    padded with zeros one by one, so nothing crosses a window's border.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many kernel sets follow one another.
        kernel_size, spectrum_size, truncate: see `KernelSetBlock`.
    """

    reversible = True

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 8, kernel_size: int = 9,
                 spectrum_size: int = 10, truncate: float = 100.0):
        super().__init__()
        self.blocks = nn.ModuleList(
            KernelSetBlock(channels=channels, vector_size=vector_size, kernel_size=kernel_size,
                           spectrum_size=spectrum_size, truncate=truncate) for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Deblur (B, C, H, W) features."""
        return self._run(features, disparity, reverse=False)

    def reverse(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Reblur (B, C, H, W) features of the sharp image with the same kernels."""
        return self._run(features, disparity, reverse=True)

    def _run(self, features: torch.Tensor, disparity: DisparityFeature, *, reverse: bool) -> torch.Tensor:
        check_images(features, disparity)
        windows = partition(features, disparity.grid)
        # The reverse direction keeps the order of the blocks, as released (`docs/networks/k3dn.md`, section 2.3).
        for block in self.blocks:
            assert isinstance(block, KernelSetBlock)
            windows = (block.reverse if reverse else block)(windows, disparity.vectors)
        return unpartition(windows, disparity.grid)
