"""Features cut into non-overlapping windows, one kernel query each, and put together again.

A window is `window` = (rows, columns) of the 1/8-resolution features where the size is a multiple of it;
at other sizes the *number* of windows is what the size holds, and the windows grow to fill it.
"""
import torch

from k3dn_plugin.errors import SizeError

# The disparity map of a window has to divide evenly: see `WindowGeometry.of`.
FEATURE_STRIDE = 8


def grid_of(height, width, window):
    """(rows, columns) of windows in features of `height` x `width`.

    Raises:
        SizeError: the features hold no whole window, or cannot be divided evenly.
    """
    rows, columns = height // window[0], width // window[1]
    if rows == 0 or columns == 0 or height % rows or width % columns:
        raise SizeError(f"features of {height} x {width} cannot be cut evenly into windows of about "
                        f"{window[0]} x {window[1]}: use an image size that is a multiple of "
                        f"{FEATURE_STRIDE * window[0]} x {FEATURE_STRIDE * window[1]}")
    return rows, columns


def partition(features: torch.Tensor, grid) -> torch.Tensor:
    """(B, C, H, W) -> (B * rows * columns, C, H / rows, W / columns), by image, then row, then column."""
    rows, columns = grid
    batch, channels, height, width = features.shape
    cut = features.view(batch, channels, rows, height // rows, columns, width // columns)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // rows, width // columns)


def unpartition(windows: torch.Tensor, grid) -> torch.Tensor:
    """The inverse of `partition`."""
    rows, columns = grid
    _, channels, height, width = windows.shape
    cut = windows.view(-1, rows, columns, channels, height, width)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)
