"""DiNAT-IR's neighborhood attention in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.layers.neighbourhood_unit import NeighbourhoodUnit
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class NeighbourhoodAttentionDeblur(nn.Module):
    """Blocks of neighborhood attention, near then dilated (Liu et al., DiNAT-IR; `docs/networks/dinat_ir.md`,
    section 15), which see the disparity as an added map.

    Queries, keys and the channel gate all hear the disparity, so it takes part in where a position looks. The weights
    of the 49 neighbors are a filter of each position's own, as a spatially varying blur asks for.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another; each is a unit of dilation 1 and one of `dilation`.
        heads: of the attention; a divisor of C.
        dilation: of a block's second unit. 7 of them should fit into the features of a training crop; beyond, they are
            padded inside.
        expansion: hidden width of the feed-forward parts in channels.

    Raises:
        OptionError: heads or dilation are out of range.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 2, heads: int = 2, dilation: int = 5,
                 expansion: float = 2.66) -> None:
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = nn.Sequential(*(NeighbourhoodUnit(channels, heads, dilation=step, expansion=expansion)
                                      for _ in range(blocks) for step in (1, dilation)))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        return self.blocks(features + self.from_disparity(features, disparity))
