"""INIKNet's implicit kernels in the place of the deblur module."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.image_filter import filter_images
from k3dn_plugin.layers.implicit_kernels import ImplicitKernelBank
from k3dn_plugin.layers.macs import record_macs
from k3dn_plugin.layers.residual import at_least_float32, without_autocast
from k3dn_plugin.layers.windows import partition, partition_with_margin, unpartition
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature, check_images
from k3dn_plugin.registry import MODULES


class ImplicitKernelBlock(nn.Module):
    """x + mixed responses of a kernel bank, chosen by the disparity and, if asked for, by each pixel's features.

    Args:
        bank: settings of the kernels; see `ImplicitKernelDeblur`.
    """

    def __init__(self, channels: int, vector_size: int, bank: ImplicitKernelBank, *, per_pixel: bool,
                 pad_windows: bool) -> None:
        super().__init__()
        self.bank, self.pad_windows = bank, pad_windows
        groups = 1 + len(bank.sizes)  # the first is that of no kernel
        self.sizes_by_window = Conditioning(vector_size, groups)
        self.bases_by_window = Conditioning(vector_size, bank.bases)
        self.trunk = None
        if per_pixel:
            self.trunk = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
            self.sizes_by_pixel = nn.Conv2d(channels, groups, 1, bias=False)
            self.bases_by_pixel = nn.Conv2d(channels, bank.bases, 1, bias=False)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        filtered = (self.by_window if self.trunk is None else self.by_pixel)(features, disparity)
        return features + self.mix(filtered)

    def by_window(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Return the responses of one kernel a window, into which all that are chosen collapse."""
        kernels = self.window_kernels(disparity.vectors).to(features.dtype)
        radius, grid = kernels.shape[-1] // 2, disparity.grid
        if self.pad_windows:
            windows = F.pad(partition(features, grid), (radius,) * 4)
        else:
            windows = partition_with_margin(features, grid, radius, zeros=True)
        return unpartition(filter_images(windows, kernels[:, None]), grid)

    def window_kernels(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, D) vectors -> (N, k, k): the sum over sizes and shapes of what each window chooses."""
        with without_autocast(vectors):
            share, basis = (at_least_float32(F.linear(vectors.to(layer.weight.dtype), layer.weight, layer.bias))
                            for layer in (self.sizes_by_window, self.bases_by_window))
            share, largest = share.softmax(-1), self.bank.sizes[-1]
            total = share.new_zeros(())
            for group, taps in enumerate(self.bank(), start=1):
                size = taps.shape[-1]
                chosen = (basis * share[:, group:group + 1]) @ taps.flatten(1)
                total = total + F.pad(chosen.view(-1, size, size), ((largest - size) // 2,) * 4)
        return total

    def by_pixel(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Return the responses of kernels chosen for each pixel, size by size."""
        assert self.trunk is not None, "built without per_pixel"
        code = self.trunk(features)
        sizes = self.sizes_by_pixel(code) + self.sizes_by_window(features, disparity)
        share = at_least_float32(sizes).softmax(1).to(features.dtype)
        basis = (self.bases_by_pixel(code) + self.bases_by_window(features, disparity)).to(features.dtype)
        x, grid = features, disparity.grid
        if self.pad_windows:
            x, share, basis = (partition(part, grid) for part in (x, share, basis))
        images, channels, total = x.shape[0], x.shape[1], x.new_zeros(())
        for group, taps in enumerate(self.bank(), start=1):
            responses = F.conv2d(x.flatten(0, 1)[:, None], taps.to(x.dtype)[:, None], padding=taps.shape[-1] // 2)
            chosen = basis * share[:, group:group + 1]
            record_macs(responses.numel() + chosen.numel())
            total = total + (responses.unflatten(0, (images, channels)) * chosen[:, None]).sum(2)
        return unpartition(total, grid) if self.pad_windows else total


@MODULES.register_module()
class ImplicitKernelDeblur(nn.Module):
    """Inverse kernels of few shapes and graded sizes, drawn by sine networks and chosen by the disparity (Quan, Yao,
    Ji, INIKNet, section 3).

    Where `KernelSetDeblur` holds a free symmetric kernel for each channel, all channels here share a bank of smooth
    shapes. A softmax over their sizes, with a group of no kernel that leaves the features alone, multiplies free
    weights over the shapes; the size follows the blur and so the disparity. What is chosen adds up what the window's
    vector and the features of the pixel say.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another, each with a bank of its own.
        bases: shapes in a bank.
        max_kernel_size: side of the largest kernels, odd (15 in INIKNet, on images); the others go down to 3.
        hidden: width of the sine networks.
        frequencies: of the first and of the last shape's network at the start.
        per_pixel: false leaves the choice to the window's vector alone, as in `KernelSetDeblur`, so that the bank is
            the only difference.
        pad_windows: zeros around each window, as `KernelSetDeblur` has them, instead of around the map.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 4, bases: int = 10, max_kernel_size: int = 9,
                 hidden: int = 64, frequencies: tuple[float, float] = (2.0, 12.0), per_pixel: bool = True,
                 pad_windows: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ImplicitKernelBlock(channels, vector_size, per_pixel=per_pixel, pad_windows=pad_windows,
                                bank=ImplicitKernelBank(bases=bases, max_kernel_size=max_kernel_size, hidden=hidden,
                                                        frequencies=frequencies))
            for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        check_images(features, disparity)
        for block in self.blocks:
            features = block(features, disparity)
        return features
