"""Means over windows in place of means over the whole map ("local pooling", Chu et al., ECCV 2022).

A network trained on small crops with global pooling sees other statistics on whole frames. With local pooling
each pixel has the mean of a window as large as the crops were. NAFNet and DiNAT-IR are published with it.
"""
from collections.abc import Sequence

import torch

from k3dn_plugin.errors import SizeError
from k3dn_plugin.layers.residual import at_least_float32, without_autocast


def training_window(train_size: Sequence[int], *, level: int, multiple: int) -> tuple[int, int]:
    """Return the window of a level, (rows, columns): one and a half times what a training crop has there.

    With f the crop's side at that level after padding to `multiple`, and s the side itself, floor(f floor(1.5 s) / s)
    (`docs/networks/nafnet.md`, section 4): 384, 192, 96, 48 and 24 for crops of 256 x 256 and levels 0 to 4.

    Args:
        train_size: rows and columns of the training crops.
        level: 0 at full size; each one halves it.
        multiple: to which the network pads, divisible by 2 ^ level.
    """
    rows, columns = ((-(-side // multiple) * multiple >> level) * (3 * side // 2) // side for side in train_size)
    return rows, columns


def local_mean(x: torch.Tensor, window: tuple[int, int] | None) -> torch.Tensor:
    """Return the mean of the window around each pixel, kept inside the map.

    Pixel (r, c) has the mean of rows s to s + k - 1, s = clip(r - floor((k - 1) / 2), 0, H - k), with k the window's
    rows or H if that is less, and of columns likewise. The sums are running ones, in float32 at least.

    Args:
        x: (B, C, H, W).
        window: rows and columns; None, or one that covers the map both ways, is the mean of the whole map.

    Returns:
        (B, C, H, W), or (B, C, 1, 1) for the mean of the whole map; in the dtype of x.
    """
    height, width = x.shape[-2:]
    if window is None or (window[0] >= height and window[1] >= width):
        return x.mean((-2, -1), keepdim=True)
    with without_autocast(x):
        means = at_least_float32(x)
        for axis, side in ((-2, window[0]), (-1, window[1])):
            means = _means_along(means, axis, min(side, means.shape[axis]))
    return means.to(x.dtype)


def grid_means(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return the means of windows that lie side by side, (B, C, H, W) -> (B, C, rows, columns).

    Args:
        x: the map.
        grid: rows and columns of windows.

    Raises:
        SizeError: the grid does not divide the size.
    """
    (rows, columns), (height, width) = grid, x.shape[-2:]
    if height % rows or width % columns:
        raise SizeError(f"a map of {height} x {width} cannot be cut evenly into {rows} x {columns} windows: use a size "
                        "that is a multiple of it")
    return x.unflatten(3, (columns, -1)).unflatten(2, (rows, -1)).mean((3, 5))


def _means_along(x: torch.Tensor, axis: int, side: int) -> torch.Tensor:
    """Means of `side` neighbors along an axis, at every position of it."""
    length = x.shape[axis]
    if side == length:
        return x.mean(axis, keepdim=True).expand_as(x)
    sums = x.cumsum(axis)
    before = sums.narrow(axis, 0, length - side)
    means = torch.cat([sums.narrow(axis, side - 1, 1), sums.narrow(axis, side, length - side) - before], axis) / side
    first = torch.arange(length, device=x.device) - (side - 1) // 2
    return means.index_select(axis, first.clamp(0, length - side))
