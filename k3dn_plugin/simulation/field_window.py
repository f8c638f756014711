"""Where a picture lies in the camera's frame: what a lens does depends on the distance from its axis."""
from typing import NamedTuple

import torch


class FieldWindow(NamedTuple):
    """A picture that is a crop of a frame.

    Attributes:
        frame: (rows, columns) of the whole frame, whose middle the optical axis meets.
        origin: (row, column) of the picture's first pixel in it.
    """

    frame: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    def across(self, columns: int) -> torch.Tensor:
        """Return u of each column, -1 at the frame's left edge to 1 at its right one."""
        return _coordinates(self.origin[1], columns, self.frame[1])

    def down(self, rows: int) -> torch.Tensor:
        """Return v of each row, -1 at the frame's upper edge to 1 at its lower one."""
        return _coordinates(self.origin[0], rows, self.frame[0])

    def middle(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return (u, v) of the middle of a picture of `size` (rows, columns)."""
        return float(self.across(size[1]).mean()), float(self.down(size[0]).mean())

    def grown(self, margin: int) -> "FieldWindow":
        """Return the window of the picture with `margin` more pixels on every side."""
        return FieldWindow(self.frame, (self.origin[0] - margin, self.origin[1] - margin))


def _coordinates(first: int, count: int, whole: int) -> torch.Tensor:
    return (torch.arange(count, dtype=torch.float64) + first + 0.5) * 2 / whole - 1
