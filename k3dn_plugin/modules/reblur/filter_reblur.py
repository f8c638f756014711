"""IFAN's reblurring: from the filters that deblur, a small network makes filters that blur again."""
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.adaptive_filter import filter_channels, iterative_adaptive_convolution, split_filters
from k3dn_plugin.layers.leaky import SLOPE, LeakyResidual, leaky_conv, xavier_
from k3dn_plugin.modules.reblur.guidance import ImageChoice, ReblurGuidance, check_image, image_to_blur
from k3dn_plugin.registry import MODULES

COLOURS = 3


@MODULES.register_module()
class FilterReblur(nn.Module):
    """Reblur the sharp image at 1/8 of its size with filters made from the restorer's deblurring filters.

    Deblurring filters that allow it must know the blur (IFAN, section 3.4). Trained beside a restorer and
    dropped afterwards; for IFAN it is larger than IFAN itself. The result is compared with the blurred center
    view averaged over blocks of 8x8 pixels. Beside a restorer that predicts no filters, a code of the two views
    takes their place (ours).

    Args:
        filters: channels of the `filters` that the restorer predicts, 15232 for the published IFAN; None takes
            the code of the views instead, which works beside any restorer.
        iterations: filterings in sequence (17 published; 9 for the published network of 26 iterations).
        kernel_size: of one separable filter.
        subsample: how the sharp image gets small. Published is "nearest" (every 8th pixel), though it is
            compared with an average; "area" averages both.
        both_kernels: see `adaptive_convolution`.
        image: which image is blurred, "sharp" or "restored"; "auto" takes the restored one where the code
            of the views is used, without which the loss would not reach the restorer (`image_to_blur`).
    """

    stride = 8
    channels = 128

    def __init__(self, *, filters: int | None = None, iterations: int = 17, kernel_size: int = 3,
                 subsample: Literal["nearest", "area"] = "nearest", both_kernels: bool = False,
                 image: ImageChoice = "auto"):
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1 or iterations < 1 or filters is not None and filters < 1:
            raise OptionError("FilterReblur: expected positive filters and iterations and an odd kernel_size;"
                              f" found {filters}, {iterations}, {kernel_size}")
        if subsample not in ("nearest", "area"):
            raise OptionError(f"FilterReblur.subsample: expected 'nearest' or 'area', found {subsample!r}")
        check_image(image, "FilterReblur")
        self.image: ImageChoice = image
        self.iterations = iterations
        self.kernel_size = kernel_size
        self.subsample = subsample
        self.both_kernels = both_kernels
        c = self.channels
        self.encoder = None
        if filters is None:
            self.encoder = nn.Sequential(leaky_conv(6, c // 4, 5, stride=2), leaky_conv(c // 4, c // 2, stride=2),
                                         leaky_conv(c // 2, c, stride=2))
        self.filters = c if filters is None else filters
        self.predictor = nn.Sequential(
            leaky_conv(self.filters, c), LeakyResidual(c, 2), LeakyResidual(c, 2),
            nn.Conv2d(c, filter_channels(iterations, COLOURS, kernel_size), 3, padding=1))
        xavier_(self)

    def forward(self, sharp: torch.Tensor, guidance: ReblurGuidance) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> `{"center": (B, 3, H/8, W/8)}`, rounded up.

        Raises:
            OptionError: the restorer predicts no filters, or another number of channels.
        """
        filters = self.filters_of(guidance)
        small = self.shrink(image_to_blur(self.image, sharp, guidance, estimated=self.encoder is not None))
        steps = split_filters(self.predictor(filters), self.iterations, COLOURS, self.kernel_size)
        change = iterative_adaptive_convolution(small, steps, slope=SLOPE, activate_last=False,
                                                both_kernels=self.both_kernels)
        return {"center": change + small}

    def filters_of(self, guidance: ReblurGuidance) -> torch.Tensor:
        """Return the restorer's filters at 1/8 of the size, or the code of the views in their place.

        Raises:
            OptionError: the restorer predicts no filters, or another number of channels.
        """
        if self.encoder is not None:
            return self.encoder(guidance.batch["lq"])
        filters = guidance.prediction.get("filters")
        wanted = self.filters
        if filters is None or filters.shape[1] != wanted:
            found = "no `filters`" if filters is None else f"filters of {filters.shape[1]} channels"
            raise OptionError(
                f"FilterReblur(filters={wanted}) reads the filters that the restorer predicts; "
                f"{type(guidance.restorer).__name__} predicts {found}. For IFAN and IFANDual set `filters` to "
                "their width x 4 x iterations x (2 x kernel_size + 1); for others leave it out")
        return filters

    def shrink(self, sharp: torch.Tensor) -> torch.Tensor:
        """Return the sharp image at 1/8, subsampled or averaged."""
        if self.subsample == "nearest":
            return sharp[..., ::self.stride, ::self.stride]
        return F.avg_pool2d(sharp, self.stride, ceil_mode=True)
