"""The mean over the transforms that leave a dual-pixel pair a dual-pixel pair.

Four of the eight symmetries do: nothing, top for bottom, left for right with the views exchanged, both.
Quarter turns would turn the disparity axis, and a mirrored pair with unexchanged views has the sign of
its defocus reversed.
"""
from collections.abc import Callable

import torch


def flipped(lq: torch.Tensor, center: torch.Tensor | None, *, rows: bool,
            columns: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mirror a pair by rows (top for bottom) and by columns (left for right, the views exchanged).

    Args:
        lq: (B, 6, H, W), left then right. center: (B, 3, H, W) or None.

    Returns:
        the transformed `lq` and `center`; applied twice, the original.
    """
    if columns:
        lq = torch.cat([lq[:, 3:], lq[:, :3]], 1)
    lq = flip_image(lq, rows=rows, columns=columns)
    return lq, None if center is None else flip_image(center, rows=rows, columns=columns)


def flip_image(image: torch.Tensor, *, rows: bool, columns: bool) -> torch.Tensor:
    """Mirror (..., H, W) by rows, by columns, by both or by neither."""
    axes = [axis for axis, wanted in ((-2, rows), (-1, columns)) if wanted]
    return image.flip(axes) if axes else image


def self_ensemble(restore: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor], lq: torch.Tensor,
                  center: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of `restore(lq, center)` over the four valid transforms, each turned back: (B, 3, H, W)."""
    total = None
    for rows in (False, True):
        for columns in (False, True):
            restored = restore(*flipped(lq, center, rows=rows, columns=columns))
            restored = flip_image(restored, rows=rows, columns=columns)
            total = restored if total is None else total + restored
    return total / 4
