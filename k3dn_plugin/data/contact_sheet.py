"""A picture of some scenes of a store: what was prepared, at a glance."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from k3dn_plugin.data.collage import beside, captioned, color_of_radius, eight_bits, stacked
from k3dn_plugin.data.disparity_check import TILE, tile_shifts
from k3dn_plugin.data.images import FULL_SCALE, to_float, write_image
from k3dn_plugin.data.store.reader import LmdbStore

SCENES = 4
WIDTH = 320          # of a panel, in pixels
FULL_COLOR = 4.0     # pixels of shift that have the full color
POSITIVE, NEGATIVE = np.array([0.9, 0.25, 0.2]), np.array([0.2, 0.4, 0.95])
TITLES = {"left": "left", "right": "right", "sharp": "truth"}


def write_contact_sheet(store: LmdbStore, path: str | Path, scenes: int = SCENES) -> Path:
    """Write `contact_sheet(store, scenes)` as a PNG file.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    write_image(path, contact_sheet(store, scenes))
    return Path(path)


def contact_sheet(store: LmdbStore, scenes: int = SCENES) -> np.ndarray:
    """Return (H, W, 3) uint8: a row a scene with the views, truth and blur radius where it has them, and the shift.

    The last panel colors the tiles whose shift could be measured: red where the right view's content lies
    further right, blue where it lies further left, gray where it cannot be measured.
    """
    names = store.names[::max(len(store) // scenes, 1)][:scenes]
    return stacked([_row(store, name) for name in names])


def _row(store: LmdbStore, name: str) -> np.ndarray:
    facts, scene = store.manifest.facts, store.scene(name)
    frames = {view: store.read(name, view) for view in TITLES if view in scene.views}
    panels = [_titled(_displayed(frame, view, facts), f"{name}  {TITLES[view]}") for view, frame in frames.items()]
    if "defocus" in scene.views:
        radius = store.read(name, "defocus")
        colors = color_of_radius(radius.reshape(radius.shape[:2]))
        panels.append(_titled(cv2.resize(colors, _small(radius), interpolation=cv2.INTER_AREA), "blur radius"))
    shifts = [] if facts["single_image"] else tile_shifts(frames["left"], frames["right"])
    panels.append(_titled(_colored(frames["left"], shifts, facts), _shift_title(shifts)))
    return beside(panels)


def _displayed(frame: np.ndarray, view: str, facts: Mapping[str, Any]) -> np.ndarray:
    """Return a small picture in [0, 1] of a stored frame."""
    black, scale = (value.get(view) if isinstance(value, dict) else value
                    for value in (facts["black_level"], facts["full_scale"]))
    small = cv2.resize(frame, _small(frame), interpolation=cv2.INTER_AREA)
    if small.ndim == 2:
        small = small[..., None]
    image = to_float(small, black_level=black or 0, full_scale=scale or FULL_SCALE[frame.dtype.name])
    if facts["linear"]:
        image = np.clip(image / max(np.percentile(image, 99), 1e-6), 0, 1) ** (1 / 2.2)
    return np.broadcast_to(np.clip(image, 0, 1), (*image.shape[:2], 3))


def _colored(frame: np.ndarray, shifts: list[tuple], facts: Mapping[str, Any]) -> np.ndarray:
    gray = 0.3 + 0.4 * _displayed(frame, "left", facts).mean(-1, keepdims=True).repeat(3, -1)
    scale = gray.shape[0] / frame.shape[0]
    side = min(TILE, *frame.shape[:2])
    for row, column, shift, _ in shifts:
        strength = min(abs(shift) / FULL_COLOR, 1)
        place = np.s_[int(row * scale):int((row + side) * scale), int(column * scale):int((column + side) * scale)]
        gray[place] = (1 - strength) * gray[place] + strength * (POSITIVE if shift > 0 else NEGATIVE)
    return gray


def _shift_title(shifts: list[tuple]) -> str:
    if not shifts:
        return "shift: not measurable"
    low, high = np.percentile([shift for _, _, shift, _ in shifts], (5, 95))
    return f"right against left {low:+.1f} to {high:+.1f} px"


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """Return the panel, uint8 or floats in [0, 1], with its title in a strip above."""
    return captioned(eight_bits(image), title, height=22, size=0.4)


def _small(frame: np.ndarray) -> tuple[int, int]:
    height, width = frame.shape[:2]
    # However narrow a frame is, its panel stays a picture.
    return WIDTH, min(max(round(height * WIDTH / width), 1), 4 * WIDTH)
