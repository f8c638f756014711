"""DRBNet's dynamic filters in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.dynamic_filter import dynamic_filter
from k3dn_plugin.layers.residual import SLOPE
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


class FilterStep(nn.Module):
    """x + a k x k filter of its own at each position + a residual, both predicted from x and the disparity."""

    def __init__(self, channels: int, vector_size: int, kernel_size: int):
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.trunk = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE))
        self.kernels = nn.Conv2d(channels, kernel_size ** 2, 3, padding=1)
        self.residual = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        code = self.trunk(features + self.from_disparity(features, disparity))
        return features + dynamic_filter(features, self.kernels(code)) + self.residual(code)


@MODULES.register_module()
class DynamicFilterDeblur(nn.Module):
    """Filters predicted for every position, with a residual image beside them (Ruan et al., DRBNet, section 3.2).

    One filter serves all channels of a position, as one serves all colors there.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: filterings, one after the other.
        kernel_size: k, odd; 7 in DRBNet, on images.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 2, kernel_size: int = 5):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"DynamicFilterDeblur.kernel_size: expected an odd number, found {kernel_size}")
        self.steps = nn.ModuleList(FilterStep(channels, vector_size, kernel_size) for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        for step in self.steps:
            features = step(features, disparity)
        return features
