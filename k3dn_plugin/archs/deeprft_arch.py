"""DeepRFT: deep residual Fourier transformation (Mao, Liu, Shen, Li, Wang, arXiv 2111.11745v1, 2021).

A U-net of three scales in and out whose residual blocks have a branch in the Fourier domain and whose
convolutions are over-parameterised (DO-Conv). The Fourier branch sees the whole map it is given, so the
result depends on the size: the published evaluation cuts the image into windows of the training patch
(512 for DPDD), which `window` does; without it the image is restored whole, padded by reflection to a
multiple of 4. The network of the AAAI 2023 paper of the same title is another one.
"""
from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.archs.multi_scale import MultiScaleRestorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.fourier_residual import DOConv, FourierBlock
from k3dn_plugin.layers.multi_input import Up, decode_scales, encode_scales, every_second, image_pyramid
from k3dn_plugin.registry import ARCHS

STRIDE = 4
WINDOWS_AT_ONCE = 4


class ScaleInput(nn.Module):
    """Features of the image at a coarser scale: the image itself and what four convolutions see in it."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            DOConv(in_channels, channels // 4), DOConv(channels // 4, channels // 2, 1),
            DOConv(channels // 2, channels // 2), DOConv(channels // 2, channels - in_channels, 1))
        self.join = DOConv(channels, channels, 1, relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(torch.cat([x, self.main(x)], 1))


class FeatureAttention(nn.Module):
    """features + convolution of (features x those of the coarser image)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = DOConv(channels, channels, relu=False)

    def forward(self, features: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return features + self.merge(features * other)


@ARCHS.register_module()
class DeepRFT(MultiScaleRestorer):
    """The published single-image network, 3 channels in and out.

    Args:
        num_res: Fourier blocks in each of the six stages: 4 (small), 8 (standard), 20 (plus).
        base_channels: width at full size; half and quarter size have two and four times as many.
        window: side of the windows that an image is cut into in evaluation, as published: not overlapping
            but at the right and bottom edges, without blending. Should be the training patch (512 for DPDD).
            null restores it whole. Training always sees the whole crop.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DeepRFT", bfloat16_db=58.0,
        paper="Mao, Liu, Shen, Li, Wang: Deep Residual Fourier Transformation for Single Image Deblurring",
        year=2021, venue="arXiv 2111.11745v1",
        official_license="Academic Public License, non-commercial",
        views=("center",), size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        tiling="approximate", receptive_margin=64, recipe_source="official code", view_order_matters=False,
        notes="The published evaluation of DPDD restores windows of 512: set `window: 512`. Without "
              "`window` the Fourier branch sees whole images, which it was not trained on. Nothing published "
              "is dual-pixel; `DeepRFTDual` is ours. Restoring leaves out the two coarser outputs, which only "
              "training needs and published counts include.")

    tiny_arguments: ClassVar[dict] = {"num_res": 1, "base_channels": 4}

    def __init__(self, *, num_res: int = 8, base_channels: int = 32, window: int | None = None) -> None:
        super().__init__()
        self.in_channels = 3 * len(self.card.views)
        if num_res < 1 or base_channels < 4 or base_channels % 2:
            raise OptionError(f"{type(self).__name__}: expected num_res of at least 1 and an even "
                              f"base_channels of at least 4; found {num_res} and {base_channels}")
        if window is not None and (window < STRIDE or window % STRIDE):
            raise OptionError(f"{type(self).__name__}.window: expected a positive multiple of {STRIDE} or "
                              f"null, found {window}")
        self.window = window
        widths = (base_channels, 2 * base_channels, 4 * base_channels)
        full, half, quarter = widths

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(FourierBlock(width) for _ in range(num_res)))

        self.extract = nn.ModuleList([DOConv(self.in_channels, full), DOConv(full, half, stride=2),
                                      DOConv(half, quarter, stride=2)])
        self.encoder = nn.ModuleList([stage(full), stage(half), stage(quarter)])
        self.half_input, self.half_attention = ScaleInput(self.in_channels, half), FeatureAttention(half)
        self.quarter_input = ScaleInput(self.in_channels, quarter)
        self.quarter_attention = FeatureAttention(quarter)
        self.fuse = nn.ModuleList(nn.Sequential(DOConv(sum(widths), width, 1),
                                                DOConv(width, width, relu=False)) for width in (full, half))
        self.decoder = nn.ModuleList([stage(quarter), stage(half), stage(full)])
        self.up = nn.ModuleList([Up(quarter, half), Up(half, full)])
        self.reduce = nn.ModuleList([DOConv(quarter, half, 1), DOConv(half, full, 1)])
        self.out = nn.ModuleList(DOConv(width, 3, relu=False) for width in (quarter, half, full))

    @property
    def size_rule(self) -> SizeRule:
        """Any size from one window on where `window` is set, else multiples of 4."""
        if self.window is None:
            return self.card.size_rule
        return SizeRule(minimum=(self.window, self.window))

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3 or 6, H, W) at a legal size -> (B, 3, H, W), window by window where `window` is set."""
        if self.window is None:
            return self.scales(views, full_only=True)[0]
        restored = views.new_empty(views.shape[0], 3, *views.shape[-2:])
        places = list(windows(views.shape[-2], views.shape[-1], self.window))
        for first in range(0, len(places), WINDOWS_AT_ONCE):
            some = places[first:first + WINDOWS_AT_ONCE]
            cut = torch.cat([views[..., r:r + self.window, c:c + self.window] for r, c, _, _ in some])
            for (r, c, top, left), image in zip(some, self.scales(cut, full_only=True)[0].chunk(len(some))):
                restored[..., top:r + self.window, left:c + self.window] = image[..., top - r:, left - c:]
        return restored

    def scales(self, views: torch.Tensor, *, full_only: bool = False) -> list[torch.Tensor]:
        """Return restored images of full, half and quarter size, or the first of them (paper, figure 2).

        The smaller inputs take every second pixel (aliased, as published), and are added to the outputs.
        """
        images = image_pyramid(views)
        e1, e2, e3 = encode_scales(images, extract=self.extract, stages=self.encoder,
                                   inputs=(self.half_input, self.quarter_input),
                                   merges=(self.half_attention, self.quarter_attention))
        half_skip = self.fuse[1](torch.cat([every_second(e1), e2, doubled(e3)], 1))
        full_skip = self.fuse[0](torch.cat([e1, doubled(e2), doubled(doubled(e3))], 1))
        decoded = decode_scales(e3, (half_skip, full_skip), stages=self.decoder, up=self.up, reduce=self.reduce)
        return [out(d) + self.residual(image) for out, d, image in
                zip(reversed(self.out), decoded[:1] if full_only else decoded, images)]


@ARCHS.register_module()
class DeepRFTDual(DeepRFT):
    """Our extension of DeepRFT to dual-pixel pairs: 6 channels in, the mean of the views as residual.

    Nothing like it was published, so no official checkpoint fits.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DeepRFT, 6 channels (ours)", bfloat16_db=51.9,
        paper=DeepRFT.card.paper, year=2021, venue=DeepRFT.card.venue,
        official_license=DeepRFT.card.official_license, views=("left", "right"),
        size_rule=DeepRFT.card.size_rule, tiling="approximate", receptive_margin=64, recipe_source="ours",
        notes="Our own dual-pixel form of the published single-image network: both views enter the first "
              "convolution and the two coarser inputs, and their mean is added to the output.")


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Each pixel repeated 2 x 2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def windows(height: int, width: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """Windows that cover an image, as published: (row, column, first row kept, first column kept) of each.

    Windows lie side by side from the top left; what is left over gets windows anchored to the right or
    bottom edge, of which only the part not yet covered is kept.
    """
    def starts(length: int) -> Iterator[tuple[int, int]]:
        whole = length // side * side
        yield from ((start, start) for start in range(0, whole, side))
        if whole < length:
            yield length - side, whole

    for row, top in starts(height):
        for column, left in starts(width):
            yield row, column, top, left
