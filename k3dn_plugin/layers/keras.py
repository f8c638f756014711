"""Layers of the two Keras U-nets, DPDNet and RDPD, with Keras's padding and first weights."""
import math

import torch
import torch.nn.functional as F
from torch import nn

# The truncation at two deviations takes 12 % off a normal's deviation; Keras gives it back.
TRUNCATED_DEVIATION = 0.87962566103423978


class RepeatUp(nn.Conv2d):
    """Repeat each pixel 2 x 2, then a 2x2 convolution that looks down and right, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C', 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        # TensorFlow's "same" padding of an even kernel puts the odd row and column behind.
        return F.relu(super().forward(F.pad(x, (0, 1, 0, 1))))


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, a ReLU after each."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.ReLU())


def initialize_as_keras(network: nn.Module, last: nn.Conv2d) -> None:
    """Truncated He normal kernels, Glorot uniform for the last layer, no bias."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            std = math.sqrt(2 / layer.weight[0].numel()) / TRUNCATED_DEVIATION
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    nn.init.xavier_uniform_(last.weight)
