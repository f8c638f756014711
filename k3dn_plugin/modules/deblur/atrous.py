"""KPAC's kernel-sharing parallel atrous convolutions in the place of the deblur module."""
from collections.abc import Sequence

import torch
from torch import nn

from k3dn_plugin.layers.parallel_atrous import ParallelAtrous
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class AtrousDeblur(nn.Module):
    """One inverse kernel at several dilations, weighed for each pixel (Son et al., KPAC, section 3).

    The disparity is an added map, so that it can decide which dilation prevails. Each block's result is added
    to its input.

    Args:
        channels: C, feature channels, even.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another (2 in the published KPAC).
        rates: the dilations.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 2, rates: Sequence[int] = (1, 2, 3, 4, 5)):
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = nn.ModuleList(ParallelAtrous(channels, rates) for _ in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        conditioning = self.from_disparity(features, disparity)
        for block in self.blocks:
            features = features + block(features + conditioning)
        return features
