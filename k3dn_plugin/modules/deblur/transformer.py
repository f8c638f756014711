"""Restormer's transformer blocks in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.channel_attention import TransformerBlock
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class TransformerDeblur(nn.Module):
    """Blocks of channel attention and gated feed-forward (Zamir et al., Restormer, section 3), which see the
    disparity as an added map.

    Attention is across channels, summed over all pixels, so what a window's disparity says reaches the
    others through it.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another.
        heads: of the attention; a divisor of C.
        expansion: hidden width of the feed-forward part in channels.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 4, heads: int = 2,
                 expansion: float = 2.66):
        super().__init__()
        if heads < 1 or channels % heads:
            raise OptionError(f"TransformerDeblur.heads: expected a divisor of {channels} channels, found {heads}")
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = nn.Sequential(*(TransformerBlock(channels, heads, expansion=expansion)
                                      for _ in range(blocks)))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        return self.blocks(features + self.from_disparity(features, disparity))
