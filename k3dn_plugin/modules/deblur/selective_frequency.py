"""SFNet's frequency splits in the place of the deblur module, window by window."""
import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.frequency_split import FrequencySplit, MeanSplit, map_mean
from k3dn_plugin.layers.windows import partition, partition_with_margin, unpartition
from k3dn_plugin.modules.disparity.feature import DisparityFeature, check_images
from k3dn_plugin.registry import MODULES

KERNEL_SIZES = (3, 5)


class ConditionedSplit(FrequencySplit):
    """A frequency split of windows, to whose decisions each window's disparity vector adds."""

    def __init__(self, channels: int, kernel_size: int, vector_size: int, *, groups: int) -> None:
        super().__init__(channels, kernel_size, groups=groups)
        self.to_query = nn.Linear(vector_size, groups * kernel_size ** 2)
        self.to_code = nn.Linear(vector_size, self.hidden)

    def split(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, n, H, W) features -> (N, n, h, w) recombined windows; the kernels see a window's neighbors."""
        query, code = (layer(disparity.vectors)[..., None, None] for layer in (self.to_query, self.to_code))
        return self(partition(features, disparity.grid), query=query, code=code,
                    padded=partition_with_margin(features, disparity.grid, self.radius))


class WindowBlock(nn.Module):
    """SFNet's residual block with the windows in the place of the whole map and of its quadrants.

    Args:
        split: whether the features are also split by predicted kernels; the last block of a stage does.
    """

    def __init__(self, channels: int, vector_size: int, *, groups: int, split: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        half = channels // 2
        self.frequency = nn.ModuleList(ConditionedSplit(half, size, vector_size, groups=groups)
                                       for size in KERNEL_SIZES if split)
        self.whole = MeanSplit(half)
        # A quadrant has weights of its own; so has a window, from its vector.
        self.to_weights = nn.Linear(vector_size, 2 * half)

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        halves = F.gelu(self.conv1(features)).chunk(2, 1)
        if self.frequency:
            conditioned = cast("Iterable[ConditionedSplit]", self.frequency)
            first, second = (split.split(half, disparity) for split, half in zip(conditioned, halves))
        else:
            first, second = (partition(half, disparity.grid) for half in halves)
        mean = map_mean(second).to(second.dtype)
        high, low = self.to_weights(disparity.vectors)[..., None, None].to(second.dtype).chunk(2, 1)
        joined = torch.cat([self.whole(first, map_mean(first)), high * (second - mean) + low * mean], 1)
        return features + self.conv2(unpartition(joined, disparity.grid))


@MODULES.register_module()
class SelectiveFrequencyDeblur(nn.Module):
    """Features of each window split into low and high frequencies and weighed anew (Cui et al., SFNet, section 3).

    Means are those of a window, and its disparity vector adds to what its features decide: how wide the low-pass
    kernels are, and how much of low and high part is kept. So a window out of focus can be given another split than
    a sharp one: one kernel queried per window, as in `KernelSetDeblur`, with a low-pass and its complement in the
    place of a set. Kernels see across the windows' borders.

    Args:
        channels: C, feature channels, even.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another; the last splits by predicted kernels, the others by means alone.
        groups: predicted kernels in each half of the channels, 8 in SFNet; the greatest divisor that they share with
            C / 2 is used.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 4, groups: int = 8) -> None:
        super().__init__()
        if channels < 2 or channels % 2 or blocks < 1 or groups < 1:
            raise OptionError("SelectiveFrequencyDeblur: expected an even number of channels and at least one block "
                              f"and one group; found {channels}, {blocks} and {groups}")
        shared = math.gcd(groups, channels // 2)
        self.blocks = nn.ModuleList(WindowBlock(channels, vector_size, groups=shared, split=index == blocks - 1)
                                    for index in range(blocks))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        check_images(features, disparity)
        for block in self.blocks:
            features = block(features, disparity)
        return features
