"""NAFNet's blocks in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.layers.naf import NAFBlock
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class NAFDeblur(nn.Module):
    """Blocks of gates and channel attention (Chen et al., NAFNet; `docs/networks/nafnet.md`, section 4), which see the
    disparity as an added map and whose attention is taken in each disparity window by itself.

    So a window's channels are scaled by what is in it, its own disparity included, where `TransformerDeblur` takes its
    statistics from the whole map. A new module adds the map and nothing else, since the blocks start as the identity.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 8) -> None:
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = nn.ModuleList(NAFBlock(channels) for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features, whose size the disparity's grid divides, and their disparity -> (B, C, H, W).

        Raises:
            SizeError: the grid does not divide the size.
        """
        features = features + self.from_disparity(features, disparity)
        for block in self.blocks:
            features = block(features, disparity.grid)
        return features
