"""How far, and along which axis, the two views of a pair are shifted: a check on data, not a depth map."""
from dataclasses import dataclass

import cv2
import numpy as np

TILE = 128
LEAST_RESPONSE = 0.15
LEAST_TILES = 3
LEAST_TILE = 16     # pixels along its side, for a shift to be seen in it


@dataclass(frozen=True)
class MeasuredDisparity:
    """Shifts from left to right view over the tiles of a pair, in pixels.

    Attributes:
        columns, rows: (5 %, median, 95 %) of the shift along the columns (x) and the rows (y).
        tiles: how many tiles had texture enough to tell.
    """

    columns: tuple[float, float, float]
    rows: tuple[float, float, float]
    tiles: int

    @property
    def is_vertical(self) -> bool:
        """Whether the views are shifted along the rows, so that the pair has to be turned."""
        return max(map(abs, self.rows)) > 2 * max(map(abs, self.columns)) + 0.5


def measure_disparity(left: np.ndarray, right: np.ndarray, *, tile: int = TILE) -> MeasuredDisparity | None:
    """Measure the shift of `right` against `left` by phase correlation in tiles.

    Args:
        left, right: (H, W, channels) of one shape, any dtype.
        tile: side of a tile in pixels, at most the frame's.

    Returns:
        Shifts, positive where the right view's content lies further right (or down); None where too few
        tiles can be told apart from noise. A shift is good to about a third of a pixel.
    """
    shifts = [(x, y) for _, _, x, y in tile_shifts(left, right, tile=tile)]
    if len(shifts) < LEAST_TILES:
        return None
    columns, rows = ((float(low), float(middle), float(high)) for low, middle, high
                     in (np.percentile(axis, (5, 50, 95)) for axis in np.transpose(shifts)))
    return MeasuredDisparity(columns, rows, len(shifts))


def tile_shifts(left: np.ndarray, right: np.ndarray, *, tile: int = TILE) -> list[tuple[int, int, float, float]]:
    """Return `(row, column, shift along the columns, along the rows)` of each tile that has texture enough to tell.

    Row and column are those of the tile's top left pixel; see `measure_disparity` for signs.
    """
    left, right = (frame.mean(-1).astype(np.float32) for frame in (left, right))
    tile = min(tile, *left.shape)
    if tile < LEAST_TILE:
        return []
    window = cv2.createHanningWindow((tile, tile), cv2.CV_32F)
    shifts = []
    for row in range(0, left.shape[0] - tile + 1, tile):
        for column in range(0, left.shape[1] - tile + 1, tile):
            place = np.s_[row:row + tile, column:column + tile]
            one, other = (frame[place] - frame[place].mean() for frame in (left, right))
            if one.std() == 0 or other.std() == 0:
                continue
            shift, response = cv2.phaseCorrelate(one, other, window)
            if response > LEAST_RESPONSE:
                shifts.append((row, column, *shift))
    return shifts
