"""IFAN's layers, which its network, its reblur module and a deblur module in its manner share.

Leaky ReLU of slope 0.1 throughout, biases everywhere, no normalisation.
"""
import torch
from torch import nn

SLOPE = 0.1


def leaky_conv(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (divides it by `stride`), then leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=(kernel_size - 1) // 2),
        nn.LeakyReLU(SLOPE))


def leaky_up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Transposed 4x4 convolution that doubles the size, then leaky ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1),
                         nn.LeakyReLU(SLOPE))


class LeakyResidual(nn.Module):
    """`units` times leaky(x + conv(leaky(conv(x)))), and an outer skip around them if there are several.

    The activation comes after each inner sum, not after the outer one (IFAN, residual block).
    """

    def __init__(self, channels: int, units: int):
        super().__init__()
        self.stem = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE),
                          nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(units))
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for unit in self.stem:
            out = self.activation(out + unit(out))
        return out + x if len(self.stem) > 1 else out


def xavier_(module: nn.Module, gain: float = 1.0) -> None:
    """Xavier-uniform weights and zero biases for every convolution inside `module`."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
