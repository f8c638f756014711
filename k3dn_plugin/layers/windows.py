"""Features cut into non-overlapping windows, one kernel query each, and put together again.

A window is `window` = (rows, columns) of the 1/8-resolution features where the size is a multiple of it;
at other sizes the *number* of windows is what the size holds, and the windows grow to fill it.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from k3dn_plugin.errors import SizeError

# Pixels of the image per cell of the features that are cut into windows.
FEATURE_STRIDE = 8


def grid_of(height: int, width: int, window: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of windows in features of `height` x `width`.

    Raises:
        SizeError: the features hold no whole window, or cannot be divided evenly.
    """
    rows, columns = height // window[0], width // window[1]
    if rows == 0 or columns == 0 or height % rows or width % columns:
        raise SizeError(f"features of {height} x {width} cannot be cut evenly into windows of about "
                        f"{window[0]} x {window[1]}: use an image size that is a multiple of "
                        f"{FEATURE_STRIDE * window[0]} x {FEATURE_STRIDE * window[1]}")
    return rows, columns


def grid_of_image(height: int, width: int, window: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of windows in an image of `height` x `width`.

    Raises:
        SizeError: the size is not a multiple of `FEATURE_STRIDE`, or `grid_of` refuses its features.
    """
    if height % FEATURE_STRIDE or width % FEATURE_STRIDE:
        raise SizeError(f"an image of {height} x {width}: both sides must be multiples of {FEATURE_STRIDE}, "
                        f"best of {FEATURE_STRIDE * window[0]} x {FEATURE_STRIDE * window[1]}; pad it")
    return grid_of(height // FEATURE_STRIDE, width // FEATURE_STRIDE, window)


def partition(features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, C, H, W) -> (B * rows * columns, C, H / rows, W / columns), by image, then row, then column."""
    return partition_with_margin(features, grid, 0)


def partition_with_margin(features: torch.Tensor, grid: tuple[int, int], margin: int, *,
                          zeros: bool = False) -> torch.Tensor:
    """Return windows that also hold `margin` cells of what lies around them.

    Beyond the image's border that is its reflection, or nothing but zeros if asked for.

    (B, C, H, W) -> (B * rows * columns, C, H / rows + 2 margin, W / columns + 2 margin), in the order of
    `partition`.
    """
    rows, columns = grid
    batch, channels, height, width = features.shape
    if zeros:
        features = F.pad(features, (margin,) * 4)
    elif margin:
        for axis, side in ((-2, height), (-1, width)):
            around = reflected_indices(-margin, side + margin, side, features.device)
            features = features.index_select(axis, around)
    high, wide = height // rows, width // columns
    cut = features.unfold(2, high + 2 * margin, high).unfold(3, wide + 2 * margin, wide)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, high + 2 * margin, wide + 2 * margin)


def unpartition(windows: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return the inverse of `partition`."""
    rows, columns = grid
    _, channels, height, width = windows.shape
    cut = windows.view(-1, rows, columns, channels, height, width)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)


def pad_to(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Pad (..., H, W) on the bottom and right to `size` by reflection, however small the image is.

    Reflection without repeating the edge, as `F.pad(mode="reflect")`, which refuses a pad that is not
    smaller than the image; here it goes back and forth as often as needed.
    """
    for axis, wanted in zip((-2, -1), size):
        have = image.shape[axis]
        if have < wanted:
            image = image.index_select(axis, reflected_indices(0, wanted, have, image.device))
    return image


def reflected_indices(start: int, stop: int, length: int, device: torch.device | None = None) -> torch.Tensor:
    """Return indices of positions `start` to `stop` - 1 in a row of `length` that goes on by reflection.

    Without repeating the edge, as `F.pad(mode="reflect")`, which refuses a pad that is not smaller than
    the row; here it goes back and forth as often as needed.
    """
    period = max(2 * (length - 1), 1)
    index = torch.arange(start, stop, device=device) % period
    return torch.where(index < length, index, period - index)
