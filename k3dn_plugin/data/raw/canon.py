"""Canon Dual Pixel RAW (CR2 of the 5D Mark IV; CR3 of EOS R, R5, R6 II, ...).

Frame 0 is the sum of both photodiodes of each pixel, frame 1 one of them; the other is the difference. Proved on
made-up CR2 files with exact truth. Not proved, for want of a file: which side frame 1 is (see `ViewSettings.swap`),
its black level on other bodies than the 5D Mark IV, and CR3 through rawpy.
"""
from pathlib import Path
from typing import ClassVar

import numpy as np

from k3dn_plugin.data.raw import libraw, mosaics
from k3dn_plugin.data.raw.base import ViewReader, Views, ViewSettings, first_bytes
from k3dn_plugin.data.raw.structure import FileFacts, read_structure
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import VIEW_READERS

# Where a file does not state its black level: measured on both frames of that body (511 or 512).
BLACK_LEVELS = {"Canon EOS 5D Mark IV": 512}
# Where a file does not state the part that the camera's own pictures show: rows and columns of LibRaw's picture.
CROPS = {(4502, 6744): (slice(12, 4492), slice(12, 6732))}  # 5D Mark IV; DPDD's framing


@VIEW_READERS.register_module()
class CanonDualPixelRaw(ViewReader):
    """The sum and one side in one file."""

    name = "canon"
    title = "Canon Dual Pixel RAW (.CR2, .CR3)"
    suffixes: ClassVar[tuple[str, ...]] = (".cr2", ".cr3")

    def source(self, path: Path) -> Path | None:
        """Return the path itself for a Canon raw file, None for others."""
        if path.is_dir():
            return None
        head = first_bytes(path)
        known = head[4:12] == b"ftypcrx " or head[8:10] == b"CR"
        return path if known or path.suffix.lower() in self.suffixes else None

    def read(self, source: Path, settings: ViewSettings) -> Views:
        """Read the views of a shot; see `ViewReader.read`."""
        facts = read_structure(source)
        if facts.kind not in ("CR2", "CR3"):
            raise DataError(f"{source}: by its name a Canon raw file, by its content {facts.kind} of {facts.camera}. "
                            "Give it its right name")
        total = libraw.read_frame(source, 0)
        side = second_frame(source, facts, total)
        black, notes = black_level(total, side, facts, settings.black_level)
        levels = mosaics.black_of(total.colors, black)
        mosaics.check_side(total.mosaic, side, levels, mosaics.clipping_number(total.mosaic, total.white), source,
                           f"{facts.kind} of {facts.camera}")
        views = mosaics.develop_views(total, side, black, settings, None if settings.whole else crop_of(total))
        views.metadata.update(kind=f"Canon Dual Pixel RAW ({facts.kind})", camera=facts.camera, file=source.name,
                              notes=notes)
        return views.exchanged() if settings.swap else views


def second_frame(path: Path, facts: FileFacts, total: libraw.RawFrame) -> np.ndarray:
    """Return the numbers of frame 1.

    Raises:
        DataError: there is none; the message says what the file is.
    """
    try:
        return libraw.read_frame(path, 1).mosaic
    except libraw.NoSuchFrameError:
        rows, columns = total.mosaic.shape
        if len(facts.frames) > 1 and len(set(facts.frames)) == 1:
            raise DataError(f"{path} ({facts.kind} of {facts.camera}): LibRaw finds one of its {len(facts.frames)} raw "
                            "frames only, so another is damaged. Copy the file from the camera again") from None
        if len(facts.frames) > 1:
            sizes = " and ".join(f"{frame[0]} x {frame[1]}" for frame in facts.frames)
            raise DataError(f"{path} ({facts.kind} of {facts.camera}): its raw frames are {sizes} (rows x columns); "
                            "expected the sum of both sides and one side, of one size") from None
        raise DataError(f"{path}: an ordinary raw file ({facts.kind} of {facts.camera}, one raw frame of {rows} x "
                        f"{columns}), without a second frame for one side of the pixels; expected a dual-pixel shot. "
                        "Switch on Dual Pixel RAW in the camera's menu (image quality) before taking it") from None


def black_level(total: libraw.RawFrame, side: np.ndarray, facts: FileFacts,
                wanted: int | None) -> tuple[tuple[int, ...], list[str]]:
    """Return the black level by color filter, and what has to be said of it.

    The user's comes first, then the file's own, then that known of the camera's model unless the side has far darker
    pixels, then an estimate.
    """
    if wanted is not None:
        return mosaics.chosen_black(wanted, total.white), []
    if any(total.black):
        return total.black, []
    known = BLACK_LEVELS.get(facts.camera, 0)
    if known and float(np.percentile(side, 0.1)) >= 0.9 * known:
        return (known,) * 4, [f"the file states no black level: {known}, that of the {facts.camera}, is taken "
                              "(--black-level says another)"]
    guess = mosaics.estimated_black(total.mosaic, side)
    return (guess,) * 4, [f"the file states no black level: {guess} is taken, by its darkest pixels (--black-level "
                          "says another)"]


def crop_of(total: libraw.RawFrame) -> tuple[slice, slice] | None:
    """Return the part of the developed picture that the camera's own pictures show, None for all of it."""
    stated = libraw.camera_crop(total)
    sizes = total.handle.sizes
    return stated if stated is not None else CROPS.get((sizes.height, sizes.width))
