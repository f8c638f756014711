"""Convolutions that stay in float32 whatever autocast asks for.

In bfloat16 a number has 8 significant bits. Where such a convolution writes the image itself, or the trunk that all
blocks add to, its rounding stays in the result; within a block it is averaged out by the layers that follow.
`benchmarks/precision.py` measures what that gains.
"""
import torch
from torch import nn

from k3dn_plugin.layers.residual import without_autocast


class PreciseConv2d(nn.Conv2d):
    """A convolution outside autocast: its result has the dtype of its weights, (B, C, H, W) -> (B, C', H', W')."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with without_autocast(x):
            return super().forward(x.to(self.weight.dtype))
