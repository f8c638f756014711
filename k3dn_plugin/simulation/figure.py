"""Pictures of simulated pairs and of the kernels behind them."""
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from k3dn_plugin.data.collage import beside, eight_bits, stacked
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.psf import PsfSettings, kernel_pair, kernel_reach


def contact_sheet(rows: Sequence[Mapping[str, np.ndarray]], height: int = 220) -> np.ndarray:
    """Draw one picture, (H, W, 3) uint8: for each scene a row with left, right, sharp and the blur radius in color.

    Args:
        rows: mappings of `left`, `right`, `sharp` (H, W, 3) uint8 or uint16 and `defocus` (H, W).
    """
    lines = []
    for row in rows:
        pictures = [eight_bits(row[view]) for view in ("left", "right", "sharp")]
        pictures.append(color_of_radius(row["defocus"]))
        width = round(pictures[0].shape[1] * height / pictures[0].shape[0])
        pictures = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
        lines.append(beside(pictures))
    return stacked(lines)


def color_of_radius(radius: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Color (H, W) blur radii: blue nearer than focus, white in focus, red beyond; (H, W, 3) uint8."""
    scale = largest or max(float(np.abs(radius).max()), 1e-6)
    value = np.clip(radius / scale, -1, 1)[..., None]
    near, far = np.array([40, 90, 200]), np.array([200, 50, 40])
    mixed = np.where(value < 0, 255 + value * (255 - near), 255 - value * (255 - far))
    return mixed.round().astype(np.uint8)


def kernel_sheet(radii: Sequence[float] = (-8, -4, -2, 2, 4, 8), *, separation: float = 1.0,
                 scale: int = 5) -> np.ndarray:
    """Draw every PSF family, a row each: left and right kernel for each radius, (H, W, 3) uint8."""
    lines = []
    lenses = [PsfSettings(family=family, separation=separation) for family in PSF_FAMILIES.names()]
    size = 2 * max(kernel_reach(r, lens) for r in radii for lens in lenses) + 1
    for lens in lenses:
        cells = []
        for radius in radii:
            pair = kernel_pair(radius, lens, size=size)
            brightest = max(float(k.max()) for k in pair)
            for kernel in pair:
                cell = (255 * (kernel / brightest).numpy() ** 0.7).astype(np.uint8)
                cell = cv2.resize(cell, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
                cells.append(np.repeat(cell[..., None], 3, 2))
        lines.append(beside(cells))
    return stacked(lines)
