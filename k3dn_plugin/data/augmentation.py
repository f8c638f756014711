"""The symmetries of a dual-pixel pair, and the eight blind ones of published recipes.

A lens blurs the left view with k_L and the right view with its mirror image k_R(x, y) = k_L(-x, y), both
symmetric in y. Mirroring the columns of a blurred view gives the mirrored scene blurred with the *mirrored*
kernel: the left view becomes a right view. So a horizontal flip must exchange the views, a vertical flip
changes nothing, and a quarter turn or a transpose, which moves the disparity to the rows, makes a pair that
no camera takes.

Signed maps keep their values under both valid flips. Disparity d = x_R - x_L: mirrored and exchanged,
x_L' = -x_R and x_R' = -x_L, so d' = d. The sign of a blur radius tells near from far, which no mirror
changes.
"""
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

EXCHANGED = {"left": "right", "right": "left"}


class Window(NamedTuple):
    """A crop in its frame, each as (rows, columns): its first pixel, its size and the frame's size."""

    place: tuple[int, int]
    size: tuple[int, int]
    frame: tuple[int, int]


class Symmetry(NamedTuple):
    """One of the eight symmetries of the square: transpose first, then the flips.

    `exchange_views` makes left right and right left.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    exchange_views: bool = False

    def apply(self, frames: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return frames by view, (H, W) or (H, W, channels), transformed alike; the results are not copies."""
        rows = slice(None, None, -1 if self.flip_rows else 1)
        columns = slice(None, None, -1 if self.flip_columns else 1)
        moved = {}
        for view, frame in frames.items():
            if self.transpose:
                frame = frame.swapaxes(0, 1)
            moved[EXCHANGED.get(view, view) if self.exchange_views else view] = frame[rows, columns]
        return moved


    def window(self, window: Window) -> Window:
        """Return where a crop lies in its frame when the frame is transformed so."""
        place, size, frame = window
        if self.transpose:
            place, size, frame = (place[1], place[0]), (size[1], size[0]), (frame[1], frame[0])
        row, column = place
        return Window((frame[0] - row - size[0] if self.flip_rows else row,
                       frame[1] - column - size[1] if self.flip_columns else column), size, frame)


FLIPS = tuple((rows, columns) for rows in (False, True) for columns in (False, True))

AUGMENTATIONS = {
    "none": (Symmetry(),),
    "dp_safe": tuple(Symmetry(False, rows, columns, exchange_views=columns) for rows, columns in FLIPS),
    "legacy8": tuple(Symmetry(turned, rows, columns) for turned in (False, True) for rows, columns in FLIPS),
}
