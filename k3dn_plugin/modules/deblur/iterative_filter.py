"""IFAN's iterative adaptive convolutions in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.adaptive_filter import iterative_adaptive_convolution
from k3dn_plugin.layers.leaky import SLOPE
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class IterativeFilterDeblur(nn.Module):
    """Small separable filters for every position and channel, applied in sequence (Lee et al., IFAN, section 3.2).

    A code of features and disparity predicts each iteration's filters when they are needed, so that those of
    all iterations are never in memory together. A residual keeps what the filters leave out.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: filterings in sequence (17 in the published IFAN).
        kernel_size: k, odd, of one separable filter; its two kernels are both used, as the paper means it.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 8, kernel_size: int = 3):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"IterativeFilterDeblur.kernel_size: expected an odd number, found {kernel_size}")
        self.from_disparity = Conditioning(vector_size, channels)
        self.code = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE))
        self.kernels = nn.ModuleList(nn.Conv2d(channels, 2 * channels * kernel_size, 1) for _ in range(blocks))
        self.biases = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        code = self.code(features + self.from_disparity(features, disparity))
        steps = ((kernels(code), bias(code)) for kernels, bias in zip(self.kernels, self.biases))
        return features + iterative_adaptive_convolution(features, steps, slope=SLOPE, activate_last=False,
                                                         both_kernels=True)
