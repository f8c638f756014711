"""Plain convolutions in the place of the deblur module: what an ablation compares with."""
import torch
from torch import nn

from k3dn_plugin.layers.residual import ResidualBlocks
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class ConvDeblur(nn.Module):
    """Residual 3x3 blocks on the features, which see the disparity as an added map.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: residual blocks.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 8):
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = ResidualBlocks(channels, blocks)

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        return self.blocks(features + self.from_disparity(features, disparity))
