"""KPAC: kernel-sharing parallel atrous convolutions (Son, Lee, Cho, Lee, ICCV 2021), single and dual-pixel.

An encoder, two blocks that apply one kernel at five dilations (`modules/kernels/parallel_atrous.py`), a
decoder; a residual is added to the center view. The published evaluation reads images as 8 bits and runs
on whole frames of 1120 x 1680; here any size is padded by reflection to a multiple of 8 (4 with two levels).
"""
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.parallel_atrous import SLOPE, ParallelAtrous
from k3dn_plugin.registry import ARCHS

FIRST_DEVIATION = 0.04
THREE_LEVEL_MARGIN = 364


def leaky_conv(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Convolution that keeps the size, leaky ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
                         nn.LeakyReLU(SLOPE))


class Down(nn.Sequential):
    """3x3 convolution at every second pixel, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, stride=2), nn.LeakyReLU(SLOPE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 2h, 2w) -> (B, C', h, w)."""
        # TensorFlow's "same" padding at an even size: nothing before, a row and a column behind.
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Sequential):
    """Transposed 4x4 convolution that doubles the size, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1),
                         nn.LeakyReLU(SLOPE))


@ARCHS.register_module()
class KPAC(Restorer):
    """The single-image network: everything comes from the center view. The defaults are the 2-level one.

    Args:
        levels: 2 or 3; the blocks work at 1/4 or 1/8 of the size. Both are published.
        width: channels at full and half size; twice as many below.
        blocks: of parallel atrous convolutions.
        rates: their dilations.
    """

    card: RestorerCard = RestorerCard(
        title="KPAC", bfloat16_db=73.6,
        paper="Son, Lee, Cho, Lee: "
              "Single Image Defocus Deblurring Using Kernel-Sharing Parallel Atrous Convolutions",
        year=2021, venue="ICCV", official_license="GNU AGPL v3, exemptions by license",
        views=("center",), value_range=(-1.0, 1.0), size_rule=SizeRule(multiple=(4, 4)),
        # Channel weights come from the mean over the image; besides, the blocks look far.
        tiling="approximate", receptive_margin=180, view_order_matters=False,
        recipe_source="only optimizer, learning rate and batch size are published; the rest is ours",
        notes="The published evaluation reads 8 bits. Ruan et al. (2022) retrained the 3-level network.")

    tiny_arguments: ClassVar[dict] = {"width": 6}

    def __init__(self, *, levels: int = 2, width: int = 48, blocks: int = 2,
                 rates: Sequence[int] = (1, 2, 3, 4, 5)):
        super().__init__()
        if levels not in (2, 3) or width < 1 or blocks < 1:
            raise OptionError(f"{type(self).__name__}: expected 2 or 3 levels, a positive width and at least "
                              f"one block; found {levels}, {width} and {blocks}")
        if levels == 3:
            self.card = dataclasses.replace(self.card, size_rule=SizeRule(multiple=(8, 8)),
                                            receptive_margin=THREE_LEVEL_MARGIN)
        widths = [width, width, 2 * width, 2 * width][:levels + 1]
        self.encoder = nn.ModuleList([nn.Sequential(leaky_conv(3 * len(self.feature_views()), width, 5),
                                                    leaky_conv(width, width))])
        for before, after in zip(widths, widths[1:]):
            self.encoder.append(nn.Sequential(Down(before, after), leaky_conv(after, after)))
        deepest = widths[-1]
        self.blocks = nn.ModuleList(ParallelAtrous(deepest, rates) for _ in range(blocks))
        self.join = nn.Sequential(leaky_conv((blocks + 1) * deepest, deepest), leaky_conv(deepest, deepest))
        self.up = nn.ModuleList(Up(widths[i + 1], widths[i]) for i in reversed(range(levels)))
        self.decoder = nn.ModuleList(leaky_conv(2 * widths[i], widths[i]) for i in reversed(range(1, levels)))
        self.out = nn.Conv2d(2 * width, 3, 5, padding=2)
        self._initialize()

    @classmethod
    def feature_views(cls) -> tuple[str, ...]:
        """Return the views that the encoder sees."""
        return ("center",)

    def encoder_input(self, views: torch.Tensor) -> torch.Tensor:
        """Return the encoder's input among the network's."""
        return views

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """The card's views in [-1, 1], the center view first, at a legal size -> (B, 3, H, W)."""
        x, skips = self.encoder_input(views), []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        found = [skips.pop()]
        for block in self.blocks:
            found.append(block(found[-1]))
        x = self.join(torch.cat(found, 1))
        for up, convolution in zip(self.up, [*self.decoder, self.out]):
            x = convolution(torch.cat([up(x), skips.pop()], 1))
        return views[:, :3] + x

    def _initialize(self) -> None:
        """Normal weights of one deviation, no bias, as published."""
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, std=FIRST_DEVIATION)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


@ARCHS.register_module()
class KPACDual(KPAC):
    """The dual-pixel network: features from left and right view, the residual is added to the center view.

    Args:
        width, blocks, rates: as of `KPAC`; it has three levels.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="KPAC (dual)", bfloat16_db=70.3, paper=KPAC.card.paper, year=2021, venue="ICCV",
        official_license=KPAC.card.official_license, views=("center", "left", "right"),
        value_range=(-1.0, 1.0), size_rule=SizeRule(multiple=(8, 8)), tiling="approximate",
        receptive_margin=THREE_LEVEL_MARGIN, recipe_source=KPAC.card.recipe_source,
        notes="The published evaluation reads 8 bits. Needs the captured center view for the published "
              "scores; without one the mean of the views is restored.")

    def __init__(self, *, width: int = 48, blocks: int = 2, rates: Sequence[int] = (1, 2, 3, 4, 5)):
        super().__init__(levels=3, width=width, blocks=blocks, rates=rates)

    @classmethod
    def feature_views(cls) -> tuple[str, str]:
        return ("left", "right")

    def encoder_input(self, views: torch.Tensor) -> torch.Tensor:
        return views[:, 3:]
