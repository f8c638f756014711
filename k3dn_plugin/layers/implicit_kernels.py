"""A bank of kernels drawn by small sine networks: the same shapes at several sizes (INIKNet).

Quan, Yao, Ji: Single Image Defocus Deblurring via Implicit Neural Inverse Kernels (ICCV 2023);
docs/networks/iniknet.md, section 4.4.
"""
import math

import torch
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.constants import made_once
from k3dn_plugin.layers.residual import at_least_float32, without_autocast

COORDINATES = 3
# Taps of a kernel of this size keep their values; larger ones are scaled down, so that sums do not grow.
UNIT_SIZE = 3


class ImplicitKernelBank(nn.Module):
    """`bases` shapes, each a function of the place in a square, drawn as kernels of 3 x 3, 5 x 5, ... taps.

    Basis i is k_i(p) = W4 sin(w_i (W2 sin(w_i (W0 p + b0)) + b2)) of polar coordinates p, with a trained frequency
    w_i; its kernel of side k has the taps 9 / k^2 k_i(p). Nothing is normalized.

    Args:
        bases: shapes.
        max_kernel_size: side of the largest kernels, odd, at least 3.
        hidden: width of the sine networks.
        frequencies: w of the first and of the last basis at the start; the others lie evenly between.

    Raises:
        OptionError: a setting is out of range.
    """

    def __init__(self, *, bases: int = 10, max_kernel_size: int = 15, hidden: int = 64,
                 frequencies: tuple[float, float] = (2.0, 12.0)) -> None:
        super().__init__()
        if bases < 1 or hidden < 1:
            raise OptionError(f"a kernel bank: expected bases and hidden of at least 1, found {bases} and {hidden}")
        if max_kernel_size < UNIT_SIZE or max_kernel_size % 2 == 0:
            raise OptionError(f"max_kernel_size: expected an odd number of at least {UNIT_SIZE}, "
                              f"found {max_kernel_size}")
        self.sizes = tuple(range(UNIT_SIZE, max_kernel_size + 1, 2))
        self.weight0 = uniform(bases, hidden, COORDINATES, fan_in=COORDINATES)
        self.bias0 = uniform(bases, hidden, fan_in=COORDINATES)
        self.weight2 = uniform(bases, hidden, hidden, fan_in=hidden)
        self.bias2 = uniform(bases, hidden, fan_in=hidden)
        self.weight4 = uniform(bases, 1, hidden, fan_in=hidden)
        self.frequency = nn.Parameter(torch.linspace(*frequencies, bases))

    @property
    def bases(self) -> int:
        """The number of shapes."""
        return self.frequency.shape[0]

    def forward(self) -> list[torch.Tensor]:
        """Return the kernels of each size from the smallest on, (bases, k, k), in float32 at least."""
        with without_autocast(self.frequency):
            w0, b0, w2, b2, w4, frequency = map(at_least_float32, (
                self.weight0, self.bias0, self.weight2, self.bias2, self.weight4, self.frequency))
            points = _points(tuple(self.sizes), frequency.device, frequency.dtype)
            frequency = frequency[:, None, None]
            x = torch.sin(frequency * torch.baddbmm(b0[:, None], points.expand(self.bases, -1, -1), w0.mT))
            x = torch.sin(frequency * torch.baddbmm(b2[:, None], x, w2.mT))
            taps = torch.bmm(x, w4.mT)[..., 0].split([size ** 2 for size in self.sizes], 1)
            return [part.unflatten(1, (size, size)) * (UNIT_SIZE / size) ** 2
                    for part, size in zip(taps, self.sizes)]


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Return a parameter drawn as torch's linear layers are."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


@made_once(8)
def _points(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The coordinates of kernels of all sizes, made once on the CPU."""
    return torch.cat([polar_coordinates(size) for size in sizes]).to(dtype).to(device)


def polar_coordinates(size: int) -> torch.Tensor:
    """Return (rho / sqrt 2, (cos + 1) / 2, (sin + 1) / 2) of the taps of a kernel, by row and column.

    The kernel is the square [-1, 1]^2 whatever its size; the angle is measured from the row axis and is zero in the
    middle. (size x size, 3), float64.
    """
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    row, column = axis.repeat_interleave(size), axis.repeat(size)
    rho = torch.sqrt(row ** 2 + column ** 2)
    middle = size ** 2 // 2
    # At the middle the angle is zero by convention.
    rho[middle], row[middle], column[middle] = 1, 1, 0
    angle = torch.stack([(row / rho + 1) / 2, (column / rho + 1) / 2], 1)
    rho[middle] = 0
    return torch.cat([rho[:, None] / math.sqrt(2), angle], 1)
