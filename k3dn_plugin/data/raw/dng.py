"""DNG files with two samples a pixel, or with two raw frames.

Nothing in a DNG says what two samples mean, so their numbers do: a second one with about half of the first one's
light, and nowhere more, is one side of a sum; two with about the same light are the views.
"""
from pathlib import Path
from typing import ClassVar

import numpy as np

from k3dn_plugin.data.raw import libraw, mosaics
from k3dn_plugin.data.raw.base import ViewReader, Views, ViewSettings, first_bytes
from k3dn_plugin.data.raw.structure import read_structure
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import VIEW_READERS

ALIKE = (0.7, 1.4)  # ratio of the light of two views; that of a side to its sum is about 0.5


@VIEW_READERS.register_module()
class TwoSampleDNG(ViewReader):
    """Sum and side, or left and right, as two samples of one picture."""

    name = "dng"
    title = "DNG with two samples a pixel or two raw frames (.DNG)"
    suffixes: ClassVar[tuple[str, ...]] = (".dng",)

    def source(self, path: Path) -> Path | None:
        """Return the path itself for a DNG file, None for others."""
        return path if not path.is_dir() and path.suffix.lower() in self.suffixes and first_bytes(path) else None

    def read(self, source: Path, settings: ViewSettings) -> Views:
        """Read the views of a shot; see `ViewReader.read`."""
        facts = read_structure(source)
        what = f"DNG of {facts.camera}"
        if facts.kind != "DNG":
            raise DataError(f"{source}: by its name a DNG file, by its content {facts.kind} of {facts.camera}. Give it "
                            "its right name")
        first = libraw.read_frame(source, 0)
        if settings.black_level is not None:
            first.black = mosaics.chosen_black(settings.black_level, first.white)
        try:
            second = libraw.read_frame(source, 1).mosaic
        except libraw.NoSuchFrameError:
            rows, columns = first.mosaic.shape
            raise DataError(f"{source}: an ordinary raw file ({what}, {rows} x {columns}, one sample a pixel and one "
                            "raw frame); expected two samples or two frames, the views or their sum and one of them. "
                            "A converter that keeps one frame only has lost the other: use the camera's own "
                            "file") from None
        views = self._views(first, second, settings, source, what)
        views.metadata.update(camera=facts.camera, file=source.name, notes=[])
        return views.exchanged() if settings.swap else views

    @staticmethod
    def _views(first: libraw.RawFrame, second: np.ndarray, settings: ViewSettings, path: Path, what: str) -> Views:
        crop = None if settings.whole else libraw.camera_crop(first)
        if first.mosaic.shape == second.shape and not np.array_equal(first.mosaic, second):
            levels = mosaics.black_of(first.colors, first.black)
            ratio = float((second.astype(np.int32) - levels).mean() / max(float((first.mosaic - levels).mean()), 1e-9))
            if ALIKE[0] <= ratio <= ALIKE[1]:
                views = mosaics.develop_sides(first, second, settings, crop)
                views.metadata["kind"] = "DNG of two views"
                return views
        levels = mosaics.black_of(first.colors, first.black)
        mosaics.check_side(first.mosaic, second, levels, mosaics.clipping_number(first.mosaic, first.white), path, what)
        views = mosaics.develop_views(first, second, first.black, settings, crop)
        views.metadata["kind"] = "DNG of a sum and one side"
        return views
