"""DPDNet (Abuolaim and Brown, ECCV 2020), dual-pixel and single-image.

A plain U-net of five levels on the two views stacked along the channels; nothing is added to an input, and
a sigmoid bounds the output. The published evaluation reads 16 bits in BGR, turns portrait frames by 90
degrees, resizes what is not 1680 x 1120 to it, and scores the float output; here any size is padded by
reflection to a multiple of 16.
"""
import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.keras import RepeatUp, double_conv, initialize_as_keras
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.registry import ARCHS

LEVELS = 4
STRIDE = 2 ** LEVELS
COLOURS = 3  # channels before the output layer, whatever the width


@ARCHS.register_module()
class DPDNet(Restorer):
    """The defaults are the published dual-pixel network.

    Args:
        dual_pixel: take the left and right views; false takes the center view alone.
        width: of the first level; each of the four below has twice as many channels.
        dropout: share of the elements dropped in training, after the two innermost encoder levels.
    """

    card: RestorerCard = RestorerCard(
        title="DPDNet", bfloat16_db=59.6, paper="Abuolaim, Brown: Defocus Deblurring Using Dual-Pixel Data",
        year=2020, venue="ECCV", official_license="MIT", views=("left", "right"), channel_order="bgr",
        size_rule=SizeRule(multiple=(STRIDE, STRIDE)), tiling="exact", receptive_margin=124,
        recipe_source="official code",
        notes="`dual_pixel: false` is the single-image network. Its weights retrained by Ruan et al. (2022) "
              "were trained on 8-bit images. One of the three channels before the output layer that dies "
              "in training stays dead: if a color never appears, start again with another seed.")

    tiny_arguments: ClassVar[dict] = {"width": 8}

    def __init__(self, *, dual_pixel: bool = True, width: int = 64, dropout: float = 0.4):
        super().__init__()
        if width < 1 or not 0 <= dropout < 1:
            raise OptionError(f"DPDNet: expected a positive width and a dropout in [0, 1); found {width} and "
                              f"{dropout}")
        self.dual_pixel = dual_pixel
        if not dual_pixel:
            self.card = dataclasses.replace(self.card, title="DPDNet (single image)", views=("center",),
                                            view_order_matters=False)
        self.dropout = dropout
        widths = [width * 2 ** level for level in range(LEVELS + 1)]
        before = [3 * len(self.card.views), *widths]
        self.encoder = nn.ModuleList(double_conv(before[i], widths[i]) for i in range(LEVELS + 1))
        self.up = nn.ModuleList(RepeatUp(widths[i + 1], widths[i]) for i in reversed(range(LEVELS)))
        self.decoder = nn.ModuleList(double_conv(2 * widths[i], widths[i]) for i in reversed(range(LEVELS)))
        self.colours = PreciseConv2d(width, COLOURS, 3, padding=1)
        self.out = PreciseConv2d(COLOURS, 3, 1)
        initialize_as_keras(self, last=self.out)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6 or 3, H, W), each view BGR in [0, 1], at a legal size -> (B, 3, H, W), BGR in (0, 1)."""
        x, skips = views, []
        for level, convolutions in enumerate(self.encoder):
            x = convolutions(x if level == 0 else F.max_pool2d(x, 2))
            if level >= LEVELS - 1:
                # Before the skip is taken: skip and pooling see the same mask.
                x = F.dropout(x, self.dropout, self.training)
            skips.append(x)
        x = skips.pop()
        for up, convolutions in zip(self.up, self.decoder):
            x = convolutions(torch.cat([skips.pop(), up(x)], 1))
        return torch.sigmoid(self.out(F.relu(self.colours(x))))
