"""IFAN's reblurring: from the filters that deblur, a small network makes filters that blur again."""
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.kernels.adaptive_filter import (filter_channels, iterative_adaptive_convolution,
                                                         split_filters)
from k3dn_plugin.modules.leaky_layers import SLOPE, LeakyResidual, leaky_conv, xavier_
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import MODULES

COLOURS = 3


@MODULES.register_module()
class FilterReblur(nn.Module):
    """Reblur the sharp image at 1/8 of its size with filters made from the restorer's deblurring filters.

    Deblurring filters that allow it must know the blur (IFAN, section 3.4). Trained beside a restorer that
    predicts `filters`, and dropped afterwards; it is larger than IFAN itself. The result is compared with
    the blurred center view averaged over blocks of 8x8 pixels.

    Args:
        filters: channels of the restorer's filters, 15232 for the published IFAN.
        iterations: filterings in sequence (17 published; 9 for the published network of 26 iterations).
        kernel_size: of one separable filter.
        subsample: how the sharp image gets small. Published is "nearest" (every 8th pixel), though it is
            compared with an average; "area" averages both.
        both_kernels: see `adaptive_convolution`.
    """

    stride = 8
    channels = 128

    def __init__(self, *, filters: int = 15232, iterations: int = 17, kernel_size: int = 3,
                 subsample: Literal["nearest", "area"] = "nearest", both_kernels: bool = False):
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1 or iterations < 1 or filters < 1:
            raise OptionError("FilterReblur: expected positive filters and iterations and an odd kernel_size;"
                              f" found {filters}, {iterations}, {kernel_size}")
        if subsample not in ("nearest", "area"):
            raise OptionError(f"FilterReblur.subsample: expected 'nearest' or 'area', found {subsample!r}")
        self.iterations = iterations
        self.kernel_size = kernel_size
        self.subsample = subsample
        self.both_kernels = both_kernels
        c = self.channels
        self.predictor = nn.Sequential(
            leaky_conv(filters, c), LeakyResidual(c, 2), LeakyResidual(c, 2),
            nn.Conv2d(c, filter_channels(iterations, COLOURS, kernel_size), 3, padding=1))
        xavier_(self)

    def forward(self, sharp: torch.Tensor, guidance: ReblurGuidance) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> `{"center": (B, 3, H/8, W/8)}`, rounded up.

        Raises:
            OptionError: the restorer predicts no filters, or another number of channels.
        """
        filters = guidance.prediction.get("filters")
        wanted = self.predictor[0][0].in_channels
        if filters is None or filters.shape[1] != wanted:
            found = "no `filters`" if filters is None else f"filters of {filters.shape[1]} channels"
            raise OptionError(
                f"FilterReblur(filters={wanted}) reads the filters that the restorer predicts; "
                f"{type(guidance.restorer).__name__} predicts {found}. Use it with IFAN or IFANDual and set "
                "`filters` to their width x 4 x iterations x (2 x kernel_size + 1)")
        small = self.shrink(sharp)
        steps = split_filters(self.predictor(filters), self.iterations, COLOURS, self.kernel_size)
        change = iterative_adaptive_convolution(small, steps, slope=SLOPE, activate_last=False,
                                                both_kernels=self.both_kernels)
        return {"center": change + small}

    def shrink(self, sharp: torch.Tensor) -> torch.Tensor:
        """The sharp image at 1/8, subsampled or averaged."""
        if self.subsample == "nearest":
            return sharp[..., ::self.stride, ::self.stride]
        return F.avg_pool2d(sharp, self.stride, ceil_mode=True)
