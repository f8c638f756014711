"""IFAN: iterative filter adaptive network (Lee, Son, Rim, Cho, Lee, CVPR 2021), single and dual-pixel.

One encoder looks at the image to restore, a second one predicts for every position at 1/8 of the size
a sequence of small separable filters, by way of a disparity map; the filters deblur the features of the
first. The published evaluation crops the image to a multiple of 8, restores it whole and clips to [0, 1];
here any size is padded by reflection.
"""
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.adaptive_filter import filter_channels, iterative_adaptive_convolution, split_filters
from k3dn_plugin.layers.leaky import SLOPE, LeakyResidual, leaky_conv, leaky_up, xavier_
from k3dn_plugin.layers.windows import pad_to
from k3dn_plugin.registry import ARCHS

STRIDE = 8


class Encoder(nn.ModuleList):
    """Levels of three convolutions; each level but the first halves the size."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]):
        super().__init__()
        for level, width in enumerate(widths):
            self.append(nn.Sequential(leaky_conv(in_channels, width, stride=1 if level == 0 else 2),
                                      leaky_conv(width, width), leaky_conv(width, width)))
            in_channels = width

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for level in self:
            x = level(x)
            maps.append(x)
        return maps


class DecoderLevel(nn.Module):
    """Double the size, add the encoder's features (after the activation), two residual blocks."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = leaky_up(in_channels, out_channels)
        self.blocks = nn.Sequential(LeakyResidual(out_channels, 1), LeakyResidual(out_channels, 1))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.up(x) + skip)


@ARCHS.register_module()
class IFAN(Restorer):
    """The single-image network: everything comes from the center view. The defaults are the published one.

    Args:
        width: of the first level; the four levels have width x (1, 2, 4, 4) channels.
        iterations: N, filterings in sequence (published: 8, 17, 26, 35, 44).
        kernel_size: taps of one separable filter.
        both_kernels: filter rows and columns with kernels of their own, as the authors advise for training
            anew; the released checkpoints use the column kernel for both.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="IFAN", bfloat16_db=67.7,
        paper="Lee, Son, Rim, Cho, Lee: Iterative Filter Adaptive Network for Single Image Defocus "
              "Deblurring",
        year=2021, venue="CVPR", official_license="GNU AGPL v3, commercial exemptions reserved",
        views=("center",), size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        # A pixel reaches 525 pixels far, by way of the predicted filters, though hardly with any weight.
        tiling="exact", receptive_margin=544, recipe_source="official code", view_order_matters=False,
        notes="Restored images are clipped to [0, 1] in evaluation, as published; not in training. The "
              "published evaluation crops to a multiple of 8.")

    tiny_arguments: ClassVar[dict] = {"width": 4, "iterations": 3}

    def __init__(self, *, width: int = 32, iterations: int = 17, kernel_size: int = 3,
                 both_kernels: bool = False):
        super().__init__()
        if width < 1 or iterations < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"{type(self).__name__}: expected positive width and iterations and an odd "
                              f"kernel_size; found {width}, {iterations}, {kernel_size}")
        self.iterations = iterations
        self.kernel_size = kernel_size
        self.both_kernels = both_kernels
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.channels = c = widths[-1]
        self.encoder = Encoder(3, widths)
        self.filter_encoder = Encoder(3 * len(self.guide_views()), widths)
        self.disparity = nn.Sequential(leaky_conv(c, c), LeakyResidual(c, 2), LeakyResidual(c, 2),
                                       nn.Conv2d(c, 1, 3, padding=1))
        self.disparity_features = leaky_conv(1, c)
        self.join = nn.Sequential(leaky_conv(2 * c, c), LeakyResidual(c, 2), LeakyResidual(c, 2),
                                  leaky_conv(c, c))
        self.filters = nn.Sequential(leaky_conv(c, c), LeakyResidual(c, 2), LeakyResidual(c, 2),
                                     nn.Conv2d(c, filter_channels(iterations, c, kernel_size), 1))
        self.refine = nn.Sequential(leaky_conv(c, c), LeakyResidual(c, 3), leaky_conv(c, c))
        self.decoder = nn.ModuleList([DecoderLevel(c, widths[2]), DecoderLevel(widths[2], widths[1]),
                                      DecoderLevel(widths[1], widths[0])])
        # The published output layer has the leaky ReLU too: negative residuals are damped tenfold.
        self.out = leaky_conv(width, 3)
        xavier_(self)
        xavier_(self.filters, gain=1.5)

    def guide_views(self) -> tuple[str, ...]:
        """Return the views that the filters are predicted from."""
        return ("center",)

    def guide(self, views: torch.Tensor) -> torch.Tensor:
        """Return the filter encoder's input among the network's."""
        return views

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """The card's views at a legal size -> (B, 3, H, W), clipped to [0, 1] in evaluation."""
        code, _ = self.predict(self.guide(views))
        # One iteration's filters at a time: all of them would take 1.8 GB for a frame of DPDD.
        image = self.deblur(views[:, :3], self.filters_one_by_one(code))
        return image if self.training else image.clamp(0, 1)

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, not clipped, and what IFAN's two other losses compare, at 1/8 of the size.

        `filters` (B, N (2ck + c), H/8, W/8), for `FilterReblur`; `warped_right` and `small_left`
        (B, 3, H/8, W/8), the right view warped by the disparity estimated from it, and the left view, which
        it should equal. The disparity is in pixels of these small images; where positive, the right view
        is looked at further to the right.
        """
        views, crop = self.prepared(batch)
        left, right = pad_to(batch["lq"], views.shape[-2:]).chunk(2, 1)
        code, disparity = self.predict(self.guide(views))
        filters = self.filters[-1](code)
        image = self.deblur(views[:, :3], split_filters(filters, self.iterations, self.channels,
                                                        self.kernel_size))
        right_disparity = self.disparity_of_right(left, right, disparity)
        return {"restored": crop(image), "filters": filters,
                "warped_right": warp_along_rows(F.avg_pool2d(right, STRIDE), right_disparity),
                "small_left": F.avg_pool2d(left, STRIDE)}

    def disparity_of_right(self, left: torch.Tensor, right: torch.Tensor,
                           disparity: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, H/8, W/8) for the right view. The single-image network estimates it anew, from that view."""
        return self.disparity(self.filter_encoder(right)[-1])

    def predict(self, guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3 or 6, H, W) -> code of the filters (B, 4 width, H/8, W/8), disparity (B, 1, H/8, W/8)."""
        features = self.filter_encoder(guide)[-1]
        disparity = self.disparity(features)
        joined = self.join(torch.cat([features, self.disparity_features(disparity)], 1))
        return self.filters[:-1](joined), disparity

    def filters_one_by_one(self, code: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(kernels, bias) of each iteration, computed when asked for.

        The published network predicts a second kernel that it does not use; it is computed here too, so
        that the operations are those of the paper's comparison (3 % of the network's).
        """
        last = self.filters[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        weight, bias = last.weight, last.bias
        taps = 2 * self.channels * self.kernel_size
        for n in range(self.iterations):
            start = self.iterations * taps + n * self.channels
            kernels, biases = slice(n * taps, (n + 1) * taps), slice(start, start + self.channels)
            yield (F.conv2d(code, weight[kernels], bias[kernels]),
                   F.conv2d(code, weight[biases], bias[biases]))

    def deblur(self, image: torch.Tensor, steps: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Filter the features of (B, 3, H, W) by `steps`, decode, add the image; not clipped."""
        *skips, features = self.encoder(image)
        features = iterative_adaptive_convolution(features, steps, slope=SLOPE, activate_last=True,
                                                  both_kernels=self.both_kernels)
        features = self.refine(features)
        for level, skip in zip(self.decoder, reversed(skips)):
            features = level(features, skip)
        return self.out(features) + image


@ARCHS.register_module()
class IFANDual(IFAN):
    """The dual-pixel network: filters and disparity come from the two views, features from the center."""

    card: ClassVar[RestorerCard] = RestorerCard(
        title="IFAN (dual)", bfloat16_db=60.0, paper=IFAN.card.paper, year=2021, venue="CVPR",
        official_license=IFAN.card.official_license,
        # The published filter encoder takes the right view first.
        views=("center", "right", "left"), size_rule=IFAN.card.size_rule, tiling="exact",
        receptive_margin=IFAN.card.receptive_margin, recipe_source="official code",
        notes=IFAN.card.notes + " Needs the captured center view for the published scores; without one it "
              "takes the mean of the two.")

    def guide_views(self) -> tuple[str, ...]:
        return ("right", "left")

    def guide(self, views: torch.Tensor) -> torch.Tensor:
        return views[:, 3:]

    def disparity_of_right(self, left: torch.Tensor, right: torch.Tensor,
                           disparity: torch.Tensor) -> torch.Tensor:
        """Return the very disparity that the filters come from."""
        return disparity


def warp_along_rows(image: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return `image` sampled `shift` pixels further to the right, bilinear, 0 outside.

    Args:
        image: (B, C, H, W).
        shift: (B, 1, H, W), in pixels.
    """
    height, width = image.shape[-2:]
    shift = shift[:, 0].to(image.dtype)
    line = {"device": image.device, "dtype": image.dtype}
    columns = torch.linspace(-1, 1, width, **line) + shift / (max(width - 1, 1) / 2)
    rows = torch.linspace(-1, 1, height, **line)[:, None].expand_as(columns)
    return F.grid_sample(image, torch.stack([columns, rows], -1), mode="bilinear", padding_mode="zeros",
                         align_corners=True)
