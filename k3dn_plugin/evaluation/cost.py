"""What a restorer costs: parameters and multiply-accumulates, counted in the same way for all."""
import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.base import Restorer, blank_maps
from k3dn_plugin.errors import SizeError
from k3dn_plugin.layers.macs import recorded_macs

FULL_FRAME = (1120, 1680)  # rows, columns of a DPDD image


@dataclass(frozen=True)
class Cost:
    """Of one restorer.

    Attributes:
        parameters: weights, trained or not.
        macs: multiply-accumulates for one pair of `size`, with all views that the restorer reads.
        size: (rows, columns).
    """

    parameters: int
    macs: int
    size: tuple[int, int]


def count_parameters(model: nn.Module) -> int:
    """Weights, those among them that a released network holds without using; not running statistics."""
    return sum(p.numel() for p in model.parameters())


def count_macs(restorer: Restorer, size: tuple[int, int] = FULL_FRAME, *, padded: bool = True) -> int:
    """Multiply-accumulates of restoring one pair.

    Convolutions and matrix products as torch's `FlopCounterMode` counts them, flops / 2, and filters and
    similarities made of element-wise products as they report themselves (`layers/macs.py`). Normalisation,
    activations and Fourier transforms are not counted, as in the papers. Nothing is computed: the network
    runs on the meta device.

    Args:
        restorer: on any device.
        size: (rows, columns) of the pair.
        padded: count what is spent on padding to the restorer's size rule, too; without, the bare network
            runs at this very size, as published figures count, and has to be able to.

    Raises:
        SizeError: the size is not positive.
    """
    height, width = size
    if height < 1 or width < 1:
        raise SizeError(f"size: expected two positive numbers, rows and columns; found {size}")
    model = copy.deepcopy(restorer).to("meta").eval()
    pair = torch.empty(1, 6, height, width, device="meta")
    with torch.no_grad(), recorded_macs() as products, FlopCounterMode(display=False) as counter:
        if padded:
            model(pair, pair[:, :3], **blank_maps(model, pair))
        else:
            model.restore(model.network_input(pair, pair[:, :3]))
    return counter.get_total_flops() // 2 + sum(products)


def measure_cost(restorer: Restorer, size: tuple[int, int] = FULL_FRAME) -> Cost:
    """Parameters and multiply-accumulates of a restorer."""
    height, width = size
    return Cost(count_parameters(restorer), count_macs(restorer, size), (height, width))
