"""The U of Restormer, which LaKDNet and DiNAT-IR share: levels joined by pixel shuffles and concatenations."""
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.precise import PreciseConv2d


class Down(PreciseConv2d):
    """Half the size, twice the channels: 3x3 convolution without bias, pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels // 2, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, 2C, H / 2, W / 2)."""
        return F.pixel_unshuffle(super().forward(x), 2)


class Up(PreciseConv2d):
    """Twice the size, half the channels: 3x3 convolution without bias, pixel-shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C / 2, 2H, 2W)."""
        return F.pixel_shuffle(super().forward(x), 2)


class ULevels(NamedTuple):
    """The parts of the U. Each is to become a member of the network, under the same name.

    Attributes:
        encoder: stages from full size inwards; the last is the innermost (latent) one.
        down: between the encoder's stages.
        up: from the innermost level out.
        reduce: 1x1 convolutions of the joined features to the level's channels, from the innermost level out;
            none at full size, where 2C channels go on.
        decoder: stages from the innermost level but one out; the last has 2C channels.
    """

    encoder: nn.ModuleList
    down: nn.ModuleList
    up: nn.ModuleList
    reduce: nn.ModuleList
    decoder: nn.ModuleList


def u_levels(width: int, levels: int, stage: Callable[[int, int], nn.Module], *, bias: bool = False) -> ULevels:
    """Build the parts of a U whose levels have `width` x (1, 2, 4, ...) channels.

    Args:
        width: C, channels at full size; even.
        levels: how many, at least two.
        stage: of a level (0 at full size) and its channels, the blocks. Called for every stage of the encoder,
            then for those of the decoder, whose last has level 0 and 2C channels.
        bias: of the 1x1 convolutions.
    """
    widths = [width * 2 ** level for level in range(levels)]
    outwards = range(levels - 2, -1, -1)
    return ULevels(
        encoder=nn.ModuleList(stage(level, channels) for level, channels in enumerate(widths)),
        down=nn.ModuleList(Down(channels) for channels in widths[:-1]),
        up=nn.ModuleList(Up(channels) for channels in reversed(widths[1:])),
        reduce=nn.ModuleList(PreciseConv2d(2 * channels, channels, 1, bias=bias)
                             for channels in reversed(widths[1:-1])),
        decoder=nn.ModuleList(stage(level, widths[level] if level else 2 * width) for level in outwards))


class HoldsULevels(Protocol):
    """What has the parts of a U as members: `ULevels`, or a network."""

    encoder: nn.ModuleList
    down: nn.ModuleList
    up: nn.ModuleList
    reduce: nn.ModuleList
    decoder: nn.ModuleList


def through_levels(x: torch.Tensor, parts: ULevels | HoldsULevels) -> torch.Tensor:
    """Run embedded features through the U: (B, C, H, W) -> (B, 2C, H, W).

    The decoder sees the enlarged features first and the encoder's second. H and W must be multiples of
    2 ^ (levels - 1).

    Args:
        x: the embedded input.
        parts: the network's `ULevels`, or the network itself, which holds them under the same names.
    """
    x = parts.encoder[0](x)
    skips = []
    for down, stage in zip(parts.down, parts.encoder[1:], strict=False):
        skips.append(x)
        x = stage(down(x))
    for i, (up, stage) in enumerate(zip(parts.up, parts.decoder, strict=False)):
        x = torch.cat([up(x), skips.pop()], 1)
        x = stage(parts.reduce[i](x) if i < len(parts.reduce) else x)
    return x
