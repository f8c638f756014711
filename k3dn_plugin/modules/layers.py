"""Layers that several modules and networks share."""
from torch import nn
from torch.nn import functional as F

SLOPE = 0.2


class ResidualBlock(nn.Module):
    """x + conv(leaky(conv(x))), 3x3 without bias, nothing after the sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE))


class ResidualBlocks(nn.Sequential):
    """`count` residual blocks in sequence."""

    def __init__(self, channels: int, count: int):
        super().__init__(*(ResidualBlock(channels) for _ in range(count)))
