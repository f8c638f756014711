"""Residual blocks of K3DN's encoder and decoder, and where half precision would be wrong."""
import contextlib

import torch
from torch import nn
from torch.nn import functional as F

SLOPE = 0.2


class ResidualBlock(nn.Module):
    """x + conv(leaky(conv(x))), 3x3 without bias, nothing after the sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In place, which changes no bit: at full size each tensor takes half a gigabyte.
        return self.conv2(F.leaky_relu(self.conv1(x), SLOPE, inplace=True)).add_(x)


class ResidualBlocks(nn.Sequential):
    """`count` residual blocks in sequence."""

    def __init__(self, channels: int, count: int):
        super().__init__(*(ResidualBlock(channels) for _ in range(count)))


def without_autocast(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context on the tensor's device in which autocast is off; nothing on the meta device, which has none."""
    if tensor.device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
