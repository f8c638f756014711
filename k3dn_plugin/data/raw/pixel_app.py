"""Pairs of PGM files that Google's dual-pixel capture app writes (google-research/dual_pixels; Pixel 3 and 4).

`NAME_left.pgm` and `NAME_right.pgm` hold the green pixels in linear light: 16 bits that carry 10, black at 4096,
white at 65535. A file is 2016 x 756: each of its rows stands for two of the sensor, so rows are doubled. In files
that are as much higher than wide (the phone turned) columns are, and the views are shifted along the rows.
"""
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from k3dn_plugin.data.raw.base import Axis, ViewReader, Views, ViewSettings, first_bytes
from k3dn_plugin.data.raw.light import WHITE, finish_view, shrink_mask, to_16_bits
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import read_file
from k3dn_plugin.registry import VIEW_READERS

BLACK = 4096
HALVED = 2.0  # columns to rows, from which on rows stand for two: 2.67 in the app's files, 1.33 on the sensor
_NAME = re.compile(r"^(?P<name>.*?)(?P<gap>[_-]?)(?P<view>left|right)$", re.IGNORECASE)
_GAP = rb"(?:\s|#[^\n]*\n)+"   # each byte in one way only, so that no header takes long
_HEADER = re.compile(rb"^P5" + 3 * (_GAP + rb"(\d{1,9})") + rb"\s")


@VIEW_READERS.register_module()
class PixelApp(ViewReader):
    """Two PGM files; the left one stands for the pair."""

    name = "pixel_app"
    title = "a pair of Google's capture app (NAME_left.pgm and NAME_right.pgm)"
    suffixes: ClassVar[tuple[str, ...]] = (".pgm",)

    def source(self, path: Path) -> Path | None:
        """Return the left view's file for a PGM file, None for others."""
        if path.is_dir() or path.suffix.lower() not in self.suffixes or first_bytes(path)[:2] not in (b"P5", b""):
            return None
        return pair_files(path)[0]

    def files(self, source: Path) -> list[Path]:
        """Return the files of both views."""
        return list(pair_files(source))

    def shot_name(self, source: Path) -> str:
        """Return the name before the view's, or the folder's where there is none."""
        found = _NAME.match(source.stem)
        return (found["name"] if found else source.stem) or source.parent.name

    def read(self, source: Path, settings: ViewSettings) -> Views:
        """Read the views of a shot; see `ViewReader.read`."""
        files = pair_files(source)
        left, right = (read_pgm(file) for file in files)
        if left.shape != right.shape:
            raise DataError(f"{files[0]} is {left.shape[0]} x {left.shape[1]}, {files[1]} {right.shape[0]} x "
                            f"{right.shape[1]} (rows x columns); both views of a shot must have one size")
        if np.array_equal(left, right):
            raise DataError(f"{files[0]} and {files[1]} are the same picture; expected the two views. One was copied "
                            "over the other: restore the original")
        black = BLACK if settings.black_level is None else settings.black_level
        if black >= WHITE:
            raise OptionError(f"black_level {black}: expected less than {WHITE}, the app's white")
        lights = {"left": without_black(left, black), "right": without_black(right, black)}
        lights["center"] = (lights["left"] + lights["right"]) / 2
        axis, repeats = doubling(left.shape, settings.axis)
        views = {}
        for view, light in lights.items():
            whole = to_16_bits(light).repeat(repeats[0], 0).repeat(repeats[1], 1)[..., None]
            views[view] = finish_view(whole, encoded=False, light=settings.light, scale=settings.scale)
        valid = ((left < WHITE) & (right < WHITE)).repeat(repeats[0], 0).repeat(repeats[1], 1)
        facts = {"kind": "pair of Google's capture app", "camera": "Google Pixel", "file": source.name,
                 "black_level": [black], "white_level": WHITE, "flip": 0, "doubled": repeats, "notes": []}
        result = Views(**views, light=settings.light, valid=shrink_mask(valid, settings.scale), disparity_axis=axis,
                       metadata=facts)
        return result.exchanged() if settings.swap else result


def pair_files(path: Path) -> tuple[Path, Path]:
    """Return the files of the left and the right view of the pair that a file belongs to.

    Raises:
        DataError: its name says no view, or the other file is not beside it.
    """
    found = _NAME.match(path.stem)
    if found is None:
        raise DataError(f"{path}: a PGM file whose name does not say which view it is; expected NAME_left.pgm and "
                        "NAME_right.pgm, as Google's capture app writes them")
    view = found["view"].lower()
    other = {"left": "right", "right": "left"}[view]
    other = other.upper() if found["view"].isupper() else other.title() if found["view"].istitle() else other
    partner = path.with_name(f"{found['name']}{found['gap']}{other}{path.suffix}")
    if not partner.is_file():
        raise DataError(f"{path}: its {other.lower()} view {partner.name} is not beside it. Copy both files of the "
                        "shot")
    return (path, partner) if view == "left" else (partner, path)


def read_pgm(path: Path) -> np.ndarray:
    """Read a binary PGM of 16 bits as (H, W) uint16.

    Raises:
        DataError: not such a file, of 8 bits, cut off, or longer than its size says.
    """
    data = read_file(path)
    header = _HEADER.match(data[:4096])
    if header is None:
        raise DataError(f"{path}: {'the file is empty' if not data else 'not a binary PGM file (P5)'}; expected the "
                        "capture app's own file. Copy it from the phone again")
    columns, rows, largest = (int(number) for number in header.groups())
    if not 255 < largest <= WHITE or not rows or not columns:
        raise DataError(f"{path}: {columns} x {rows} pixels up to {largest}; expected 16 bits (up to 65535), as the "
                        "capture app writes. An 8-bit copy has lost the views' differences: use the original")
    needed = header.end() + 2 * rows * columns
    if len(data) != needed:
        raise DataError(f"{path}: {'cut off' if len(data) < needed else 'damaged'}: {columns} x {rows} pixels take "
                        f"{needed:,} bytes, the file has {len(data):,}. Copy it from the phone again")
    return np.frombuffer(data, ">u2", rows * columns, header.end()).reshape(rows, columns).astype(np.uint16)


def without_black(numbers: np.ndarray, black: int) -> np.ndarray:
    """Return linear light in [0, 1], float32, of the app's numbers."""
    return np.maximum(numbers.astype(np.float32) - black, 0) / np.float32(WHITE - black)


def doubling(shape: tuple[int, ...], unknown: Axis) -> tuple[Axis, tuple[int, int]]:
    """Return the axis along which the views are shifted, and how often rows and columns are repeated.

    Args:
        unknown: the axis of files that do not have the app's shape, so that nothing tells.
    """
    rows, columns = shape
    if columns >= HALVED * rows:
        return "x", (2, 1)
    if rows >= HALVED * columns:
        return "y", (1, 2)
    return unknown, (1, 1)
