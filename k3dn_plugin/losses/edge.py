"""Distances between image gradients: Sobel filters at one size, or at several (RDPD)."""

import torch
import torch.nn.functional as F

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.constants import made_once
from k3dn_plugin.losses.base import PairLoss
from k3dn_plugin.registry import LOSSES

# Side: (smoothing, derivative, largest coefficient of their outer product).
FILTERS = {
    3: ((1, 2, 1), (1, 0, -1), 2),
    7: ((1, 6, 15, 20, 15, 6, 1), (-1, -4, -5, 0, 5, 4, 1), 100),
    11: ((1, 10, 45, 120, 210, 252, 210, 120, 45, 10, 1), (-1, -8, -27, -48, -42, 0, 42, 48, 27, 8, 1), 12096),
}


@made_once(64)
def _sobel_on(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The filter of a size over its largest coefficient, made once on the CPU for each device."""
    smoothing, derivative, largest = FILTERS[size]
    return torch.outer(torch.tensor(smoothing, dtype=dtype), torch.tensor(derivative, dtype=dtype)).to(device) / largest


@LOSSES.register_module()
class MultiSobelLoss(PairLoss):
    """Mean squared difference of Sobel gradients, summed over the sizes (Abuolaim et al., RDPD, section 4).

    Each filter is divided by its largest coefficient; positions where it leaves the image do not count. The
    released code squares the factors with the gradients, uses the 3 x 3 filter over 100 for size 7, and
    looks at the first sample of a batch alone; here the paper is followed.

    Args:
        weight, predicted, target: see `PairLoss`; images or sequences.
        across, down: factors of the horizontal and the vertical derivative.
        sizes: sides of the filters, of 3, 7 and 11.
    """

    def __init__(self, *, weight: float = 1.0, predicted: str = "restored", target: str = "gt",
                 across: float = 0.03, down: float = 0.02, sizes: tuple[int, ...] = (3, 7, 11)):
        super().__init__(weight=weight, predicted=predicted, target=target)
        if not sizes or any(size not in FILTERS for size in sizes):
            raise OptionError(f"MultiSobelLoss.sizes: expected some of {', '.join(map(str, FILTERS))}; "
                              f"found {list(sizes)}")
        self.across, self.down, self.sizes = across, down, tuple(sizes)

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        difference = (predicted - target).flatten(0, -4)  # sequences frame by frame
        planes = difference.flatten(0, 1)[:, None]
        total = planes.new_zeros(())
        for size in self.sizes:
            if min(planes.shape[-2:]) < size:
                raise OptionError(f"MultiSobelLoss: a filter of {size} x {size} does not fit in images of "
                                  f"{tuple(planes.shape[-2:])}; leave {size} out of `sizes`")
            kernel = _sobel_on(size, planes.device, planes.dtype)
            for factor, filter_ in ((self.across, kernel), (self.down, kernel.T)):
                total = total + factor * (F.conv2d(planes, filter_[None, None]) ** 2).mean()
        return total


@LOSSES.register_module()
class EdgeLoss(PairLoss):
    """Mean absolute difference of the Sobel gradients, horizontal and vertical, channel by channel."""

    def __init__(self, *, weight: float = 1.0, predicted: str = "restored", target: str = "gt"):
        super().__init__(weight=weight, predicted=predicted, target=target)
        across = torch.tensor([[-1., 0., 1.], [-2., 0., 2.], [-1., 0., 1.]]) / 8
        self.kernels: torch.Tensor
        self.register_buffer("kernels", torch.stack([across, across.T])[:, None], persistent=False)

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        difference = predicted - target
        channels = difference.shape[1]
        kernels = self.kernels.to(difference.dtype).repeat(channels, 1, 1, 1)
        gradients = F.conv2d(F.pad(difference, (1, 1, 1, 1), mode="replicate"), kernels, groups=channels)
        return gradients.abs().mean()
