"""Measured kernels: a bank of pairs on a grid of the field, such as Xin et al. published for the Pixel 4.

S. Xin et al., "Defocus map estimation and deblurring from a single dual-pixel image", ICCV 2021: two arrays
(48, 61, 61), for the 6 x 8 patches of 168 x 168 pixels of the picture's middle. The kernels are for one
defocus; other sizes are scaled copies, and the other side of focus is the same kernel turned by 180 degrees
(a point's rays cross in the focus plane).
"""
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from k3dn_plugin.array_files import read_array
from k3dn_plugin.errors import DataError

FILES = ("blur_kernels_left.npy", "blur_kernels_right.npy")


@dataclass(frozen=True)
class KernelBank:
    """Pairs of kernels over the field.

    Attributes:
        left, right: (rows, columns, k, k) float64 of unit sum, for points beyond the focus, the middle of
            each pair's light in the middle of the kernel.
        radius: blur radius in pixels that they belong to, that of a disc of the same spread.
    """

    left: torch.Tensor
    right: torch.Tensor
    radius: float

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the field."""
        return self.left.shape[0], self.left.shape[1]

    def density(self, x: torch.Tensor, y: torch.Tensor, radius: float,
                position: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute both views' unnormalized densities at offsets in pixels, for r > 0, at (u, v) in [-1, 1]^2."""
        rows, columns = self.grid
        column = min(int((position[0] + 1) / 2 * columns), columns - 1)
        row = min(int((position[1] + 1) / 2 * rows), rows - 1)
        side = self.left.shape[-1]
        # grid_sample wants -1 and 1 at the outer edges of the kernel.
        scale = self.radius / radius * 2 / side
        places = torch.stack([x * scale, y * scale], -1)[None]
        pair = torch.stack([self.left[row, column], self.right[row, column]])[None]
        sampled = F.grid_sample(pair, places, align_corners=False)[0]
        return sampled[0], sampled[1]


@functools.lru_cache(maxsize=4)
def load_bank(folder: str, grid: tuple[int, int] = (6, 8)) -> KernelBank:
    """Read `blur_kernels_left.npy` and `blur_kernels_right.npy` of a folder.

    Args:
        folder: holds two arrays (rows * columns, k, k), row by row over the field, k odd.
        grid: (rows, columns).

    Raises:
        DataError: a file is missing, or holds something else.
    """
    pair = [_read(Path(folder) / name, grid) for name in FILES]
    if pair[0].shape != pair[1].shape:
        raise DataError(f"{folder}: the two banks differ: {pair[0].shape} and {pair[1].shape}")
    offsets = np.arange(pair[0].shape[-1]) - pair[0].shape[-1] // 2
    whole = (pair[0] + pair[1]) / 2
    middle_x, middle_y = (whole * offsets).sum((2, 3)), (whole * offsets[:, None]).sum((2, 3))
    squares = (whole * (offsets ** 2 + offsets[:, None] ** 2)).sum((2, 3))
    spread = (squares - middle_x ** 2 - middle_y ** 2).mean()
    gap = ((pair[1] - pair[0]) * offsets).sum((2, 3)).mean()
    left, right = (_centered(kernels, middle_x, middle_y) for kernels in pair)
    if gap < 0:
        # Measured nearer than focus: turned, they are those beyond it.
        left, right = left.flip((2, 3)), right.flip((2, 3))
    return KernelBank(left, right, float(np.sqrt(2 * spread)))


def _read(path: Path, grid: tuple[int, int]) -> np.ndarray:
    if not path.exists():
        raise DataError(f"there is no {path}; a bank of measured kernels is a folder with {' and '.join(FILES)}")
    kernels = read_array(path, "kernels").astype(np.float64)
    count = grid[0] * grid[1]
    if kernels.ndim != 3 or len(kernels) != count or kernels.shape[1] != kernels.shape[2] or \
            kernels.shape[1] % 2 == 0 or not np.isfinite(kernels).all() or (kernels.sum((1, 2)) <= 0).any():
        raise DataError(f"{path}: expected ({count}, k, k) kernels with k odd and some light in each, found "
                        f"{kernels.shape}")
    kernels = np.maximum(kernels, 0)
    kernels /= kernels.sum((1, 2), keepdims=True)
    return kernels.reshape(*grid, *kernels.shape[1:])


def _centered(kernels: np.ndarray, middle_x: np.ndarray, middle_y: np.ndarray) -> torch.Tensor:
    """Shifted so that the pair's light has its middle in the kernel's: truths stay where they are."""
    rows, columns, side = kernels.shape[:3]
    pixel = torch.arange(side, dtype=torch.float64) - side // 2
    shift_x, shift_y = (torch.from_numpy(m).reshape(-1, 1, 1) for m in (middle_x, middle_y))
    x = (pixel[None, None] + shift_x).expand(-1, side, -1)
    y = (pixel[None, :, None] + shift_y).expand(-1, -1, side)
    places = torch.stack([x, y], -1) * 2 / side
    moved = F.grid_sample(torch.from_numpy(kernels).reshape(-1, 1, side, side), places, align_corners=False)
    moved = moved / moved.sum((2, 3), keepdim=True)
    return moved.reshape(rows, columns, side, side)
