"""Quad-pixel sets: four pictures of one shot, by the corner of the pixel (and of the lens) that they come from.

`lt`, `rt`, `lb` and `rb` (left top, right top, left bottom, right bottom) make two dual-pixel pairs: (lt + lb,
rt + rb) is shifted along the columns, (lt + rt, lb + rb) along the rows. Files are `lt.png` in a folder of their own
or `NAME_lt.png`. Sums are halved, so that a view is as bright as its files.
"""
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from k3dn_plugin.data.image_metadata import read_metadata
from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.raw.base import ViewReader, Views, ViewSettings
from k3dn_plugin.data.raw.light import WHITE, finish_view, shrink_mask
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import VIEW_READERS

CORNERS = ("lt", "rt", "lb", "rb")
# Which corners are summed to the left (or top) and the right (or bottom) view.
PAIRS = {"x": (("lt", "lb"), ("rt", "rb")), "y": (("lt", "rt"), ("lb", "rb"))}
_NAME = re.compile(r"^(?P<name>.*?)(?P<gap>[_-]?)(?P<corner>lt|rt|lb|rb)$", re.IGNORECASE)


@VIEW_READERS.register_module()
class QuadPixel(ViewReader):
    """Four files; that of the left top corner stands for the set."""

    name = "quad_pixel"
    title = "a quad-pixel set (lt, rt, lb, rb as PNG or TIFF; a folder, or one of the files)"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".tif", ".tiff")

    def source(self, path: Path) -> Path | None:
        """Return the left top corner's file for a file or folder of a set, None for others."""
        if path.is_dir():
            # A set without one of its files is still a set, of which the user is told.
            found = [file for file in sorted(path.iterdir()) if file.stem.lower() in CORNERS
                     and file.suffix.lower() in self.suffixes]
            return set_files(found[0])["lt"] if found else None
        known = path.suffix.lower() in self.suffixes and _NAME.match(path.stem)
        if not known or known["name"] and not known["gap"]:
            return None
        return set_files(path)["lt"]

    def files(self, source: Path) -> list[Path]:
        """Return the files of all four corners."""
        return list(set_files(source).values())

    def shot_name(self, source: Path) -> str:
        """Return the name before the view's, or the folder's where there is none."""
        found = _NAME.match(source.stem)
        return (found["name"] if found else source.stem) or source.resolve().parent.name

    def read(self, source: Path, settings: ViewSettings) -> Views:
        """Read the views of a shot; see `ViewReader.read`."""
        files = set_files(source)
        corners = {corner: read_image(file, gray=True) for corner, file in files.items()}
        check_corners(files, corners)
        left, right = (mean_of([corners[corner] for corner in pair]) for pair in PAIRS[settings.axis])
        views = {}
        for view, picture in (("left", left), ("right", right), ("center", mean_of(list(corners.values())))):
            views[view] = finish_view(picture, encoded=True, light=settings.light, scale=settings.scale)
        full = np.iinfo(corners["lt"].dtype).max
        valid = ~np.any([(corner == full).any(-1) for corner in corners.values()], axis=0)
        facts = {"kind": "quad-pixel set", "camera": "not stated", "file": source.name, "flip": 0,
                 "summed": [" + ".join(pair) for pair in PAIRS[settings.axis]], "notes": []}
        picture = read_metadata(files["lt"])
        if settings.light == "linear":   # which the profile does not describe
            picture = replace(picture, profile=None)
        result = Views(**views, light=settings.light, valid=shrink_mask(valid, settings.scale),
                       disparity_axis=settings.axis, metadata=facts, picture=picture)
        return result.exchanged() if settings.swap else result


def set_files(path: Path) -> dict[str, Path]:
    """Return the files of the set that a file belongs to, by corner.

    Raises:
        DataError: one is missing; the message names all that are, and is the same for each file of the set.
    """
    found = _NAME.match(path.stem)
    if found is None:
        raise DataError(f"{path}: its name does not say which corner it is; expected NAME_lt, NAME_rt, NAME_lb, "
                        "NAME_rb")
    files = {corner: path.with_name(f"{found['name']}{found['gap']}"
                                    f"{corner.upper() if found['corner'].isupper() else corner}{path.suffix}")
             for corner in CORNERS}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        there = next((file for file in files.values() if file.is_file()), path)
        raise DataError(f"{there}: of its quad-pixel set {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                        "not beside it; expected four files. Copy all files of the shot")
    return files


def check_corners(files: dict[str, Path], corners: dict[str, np.ndarray]) -> None:
    """Raise where the four pictures cannot be of one shot.

    Raises:
        DataError: they differ in size, bit depth or channels, or two are the same picture.
    """
    first = corners["lt"]
    for number, (corner, picture) in enumerate(corners.items()):
        if picture.shape != first.shape or picture.dtype != first.dtype:
            raise DataError(f"{files[corner]} is {picture.shape} of {picture.dtype}, {files['lt']} {first.shape} of "
                            f"{first.dtype} (rows, columns, channels); all four must be alike")
        for other in list(corners)[:number]:
            if np.array_equal(picture, corners[other]):
                raise DataError(f"{files[other]} and {files[corner]} are the same picture; expected four views. One "
                                "was copied over the other: restore the original")


def mean_of(pictures: list[np.ndarray]) -> np.ndarray:
    """Return the mean of pictures of one dtype, uint16 with white at 65535, rounded.

    The stored numbers are averaged as they are: nothing in such files says whether they are encoded or linear.
    """
    scale = WHITE / np.iinfo(pictures[0].dtype).max / len(pictures)
    return np.round(np.sum(pictures, 0, dtype=np.float64) * scale).astype(np.uint16)
