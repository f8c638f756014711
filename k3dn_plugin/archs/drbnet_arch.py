"""DRBNet (Ruan, Chen, Li, Lam, CVPR 2022), single-image and dual-pixel.

From a small copy of the image, restoration climbs four scales: at each, predicted 7 x 7 kernels, one a
pixel, filter the image, and a residual is added; detail comes from an encoder. The dual-pixel network's
encoder sees right and left view, in this order, while the image that is restored is the center view. The
published evaluation reads 8-bit images, crops them to a multiple of 16 and restores them whole; here any
size is padded by reflection to a multiple of 8.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.dynamic_filter import dynamic_filter
from k3dn_plugin.layers.leaky import SLOPE, leaky_conv, leaky_up
from k3dn_plugin.registry import ARCHS

STRIDE = 8


class Residual(nn.Module):
    """x + conv(leaky(conv(x))), 3x3, nothing after the sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE),
                                  nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class EncoderLevel(nn.Sequential):
    """Three convolutions, the first with the stride."""

    def __init__(self, in_channels: int, channels: int, *, stride: int):
        super().__init__(leaky_conv(in_channels, channels, stride=stride), leaky_conv(channels, channels),
                         leaky_conv(channels, channels))


class DecoderLevel(nn.Module):
    """Double the size, add the encoder's features (after the activation), two residual blocks."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.up = leaky_up(in_channels, channels)
        self.blocks = nn.Sequential(Residual(channels), Residual(channels))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.up(x) + skip)


class FilterStep(nn.Module):
    """Restoration at one scale: image + image filtered by predicted kernels + predicted residual.

    A zero kernel and residual leave the image as it is. The residual's last layer has the leaky ReLU too,
    which damps what it takes away tenfold; the kernels' has none.

    Args:
        channels: of the decoder's features.
        image_widths: of the three layers that look at the image.
        kernel_widths, residual_widths: of the two hidden layers of each head.
        kernel_size: k, side of the kernels.
    """

    def __init__(self, channels: int, image_widths: tuple[int, int, int], kernel_widths: tuple[int, int],
                 residual_widths: tuple[int, int], kernel_size: int):
        super().__init__()
        first, second, third = image_widths
        self.image_features = nn.Sequential(leaky_conv(3, first), leaky_conv(first, second),
                                            leaky_conv(second, third))
        joined = channels + third
        self.kernels = nn.Sequential(leaky_conv(joined, kernel_widths[0]), leaky_conv(*kernel_widths),
                                     nn.Conv2d(kernel_widths[1], kernel_size ** 2, 1))
        self.residual = nn.Sequential(leaky_conv(joined, residual_widths[0]), leaky_conv(*residual_widths),
                                      leaky_conv(residual_widths[1], 3, kernel_size=1))

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) image and (B, C, h, w) features -> (B, 3, h, w)."""
        joined = torch.cat([features, self.image_features(image)], 1)
        return image + dynamic_filter(image, self.kernels(joined)) + self.residual(joined)


@ARCHS.register_module()
class DRBNet(Restorer):
    """The single-image network: everything comes from the center view. The defaults are the published one.

    Args:
        width: channels at full size; the four levels have width x (1, 2, 4, 8).
        kernel_size: side of the predicted kernels.
        clip_in_training: clip the output to [0, 1] in training too, as published; where it acts no
            gradient passes. False leaves it free until evaluation.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DRBNet", bfloat16_db=68.4,
        paper="Ruan, Chen, Li, Lam: "
              "Learning to Deblur using Light Field Generated and Real Defocus Images",
        year=2022, venue="CVPR", official_license="GNU AGPL v3",
        views=("center",), value_range=(-1.0, 1.0), size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        tiling="exact", receptive_margin=144, view_order_matters=False,
        recipe_source="only the two stages (light-field data, then DPDD) are published; the rest is ours",
        notes="Restored images are clipped to [0, 1], as published. The published evaluation reads 8 bits "
              "and crops to a multiple of 16.")

    tiny_arguments: ClassVar[dict] = {"width": 4, "kernel_size": 3}

    def __init__(self, *, width: int = 32, kernel_size: int = 7, clip_in_training: bool = True):
        super().__init__()
        if width < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"{type(self).__name__}: expected a positive width and an odd kernel_size; "
                              f"found {width} and {kernel_size}")
        self.clip_in_training = clip_in_training
        w, widths = width, (width, 2 * width, 4 * width, 8 * width)
        before = (3 * len(self.encoder_views()), *widths[:-1])
        self.encoder = nn.ModuleList(EncoderLevel(b, c, stride=1 if i == 0 else 2)
                                     for i, (b, c) in enumerate(zip(before, widths)))
        deepest = widths[-1]
        self.join = nn.Sequential(leaky_conv(deepest, deepest), Residual(deepest), Residual(deepest),
                                  leaky_conv(deepest, deepest))
        self.decoder = nn.ModuleList(DecoderLevel(b, c) for b, c in
                                     zip(reversed(widths[1:]), reversed(widths[:-1])))
        # From 1/8 to full size.
        self.steps = nn.ModuleList([
            FilterStep(8 * w, (2 * w, 4 * w, 8 * w), (8 * w, 4 * w), (8 * w, 2 * w), kernel_size),
            FilterStep(4 * w, (2 * w, 4 * w, 4 * w), (4 * w, 4 * w), (4 * w, 2 * w), kernel_size),
            FilterStep(2 * w, (2 * w, 2 * w, 2 * w), (2 * w, 2 * w), (2 * w, 2 * w), kernel_size),
            FilterStep(w, (2 * w, 2 * w, w), (2 * w, 2 * w), (2 * w, 2 * w), kernel_size)])

    @classmethod
    def encoder_views(cls) -> tuple[str, ...]:
        """Return the views that the encoder sees."""
        return ("center",)

    def encoder_input(self, views: torch.Tensor) -> torch.Tensor:
        """Return the encoder's input among the network's."""
        return views

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """The card's views in [-1, 1] at a legal size -> (B, 3, H, W), clipped to [-1, 1]."""
        x = self.encoder_input(views)
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        features = self.join(skips.pop())
        image = self.steps[0](F.avg_pool2d(views[:, :3], STRIDE), features)
        for level, step in zip(self.decoder, self.steps[1:]):
            features = level(features, skips.pop())
            # The published enlargement repeats each pixel 2 x 2.
            image = step(F.interpolate(image, scale_factor=2, mode="nearest"), features)
        return image.clamp(-1, 1) if self.clip_in_training or not self.training else image


@ARCHS.register_module()
class DRBNetDual(DRBNet):
    """The dual-pixel network: the encoder sees right and left view, the restored image is the center's."""

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DRBNet (dual)", bfloat16_db=73.0, paper=DRBNet.card.paper, year=2022, venue="CVPR",
        official_license=DRBNet.card.official_license, views=("center", "right", "left"),
        value_range=(-1.0, 1.0), size_rule=DRBNet.card.size_rule, tiling="exact",
        receptive_margin=DRBNet.card.receptive_margin, recipe_source=DRBNet.card.recipe_source,
        notes=DRBNet.card.notes + " Needs the captured center view for the published scores; without one "
              "the mean of the views is restored.")

    @classmethod
    def encoder_views(cls) -> tuple[str, str]:
        return ("right", "left")

    def encoder_input(self, views: torch.Tensor) -> torch.Tensor:
        return views[:, 3:]
