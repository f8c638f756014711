"""Kernel-sharing parallel atrous convolutions (Son, Lee, Cho, Lee, ICCV 2021).

One inverse kernel at several dilations removes blur of several sizes; which size prevails where is a map
per dilation, predicted for each pixel, and how much each channel counts is predicted for the whole image.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError

SLOPE = 0.2
KERNEL_SIZE = 5


class ScaleAttention(nn.Sequential):
    """A map in (0, 1) for each dilation; they are independent (sigmoid, not softmax)."""

    def __init__(self, channels: int, rates: int):
        wide, narrow = max(channels // 3, 1), max(channels // 6, 1)
        layers = []
        for before, after in ((channels, wide), (wide, wide), (wide, narrow), (narrow, narrow)):
            layers += [nn.Conv2d(before, after, KERNEL_SIZE, padding=4, dilation=2), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, nn.Conv2d(narrow, rates, KERNEL_SIZE, padding=2), nn.Sigmoid())


class ShapeAttention(nn.Sequential):
    """A number in (0, 1) for each channel of the shared kernel, from the mean over all pixels."""

    def __init__(self, channels: int):
        hidden = max(channels // 8, 1)
        super().__init__(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(SLOPE),
                         nn.Conv2d(hidden, channels // 2, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C/2, 1, 1)."""
        return super().forward(x.mean((2, 3), keepdim=True))


class ParallelAtrous(nn.Module):
    """One block: shared kernel at all dilations, weighed, joined by a convolution. No residual inside.

    Args:
        channels: in and out, even.
        rates: the dilations.
    """

    def __init__(self, channels: int, rates: Sequence[int] = (1, 2, 3, 4, 5)):
        super().__init__()
        if channels < 2 or channels % 2 or not rates or min(rates) < 1:
            raise OptionError("parallel atrous convolutions: expected an even number of channels and "
                              f"positive rates; found {channels} and {list(rates)}")
        self.rates = tuple(rates)
        self.shared = nn.Conv2d(channels, channels // 2, KERNEL_SIZE, bias=False)
        self.scale_attention = ScaleAttention(channels, len(self.rates))
        self.shape_attention = ShapeAttention(channels)
        self.join = nn.Conv2d(len(self.rates) * (channels // 2), channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        scales = self.scale_attention(x).split(1, 1)
        shape = self.shape_attention(x)
        branches = [self.at_rate(x, rate) * scale * shape for rate, scale in zip(self.rates, scales)]
        return F.leaky_relu(self.join(torch.cat(branches, 1)), SLOPE)

    def at_rate(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        """Return the shared kernel at one dilation, (B, C/2, h, w)."""
        padding = rate * (KERNEL_SIZE // 2)
        return F.leaky_relu(F.conv2d(x, self.shared.weight, padding=padding, dilation=rate), SLOPE)
