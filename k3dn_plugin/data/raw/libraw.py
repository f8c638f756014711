"""LibRaw through rawpy: the raw frames of a file, and their development. The only file that knows rawpy.

The frame of a file with several has to be chosen **before** the file is opened: `rawpy.imread(path, shot_select=1)`
sets it afterwards and gives frame 0 without a word.
"""
import contextlib
import os
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from k3dn_plugin.errors import DataError, DependencyError

LEAST_RAWPY = "0.26"


_STDERR = threading.Lock()


class NoSuchFrameError(DataError):
    """The file has no raw frame of that number."""


@dataclass
class RawFrame:
    """One raw frame of a file.

    Attributes:
        mosaic: (H, W) uint16, the sensor's numbers with its masked border.
        colors: (H, W) uint8, the color filter of each pixel: index into `black`.
        black: black level by color filter. white: the number at which the sensor is full.
        handle: rawpy's object, which develops.
    """

    mosaic: np.ndarray
    colors: np.ndarray
    black: tuple[int, ...]
    white: int
    handle: Any


def import_rawpy() -> types.ModuleType:
    """Return rawpy.

    Raises:
        DependencyError: it is missing, broken, or too old to choose a frame.
    """
    try:
        import rawpy  # optional, 3 MB, and LibRaw comes with it
    except ImportError as error:
        raise DependencyError(f"camera raw files need rawpy {LEAST_RAWPY} or later ({error}); install it with: pip "
                              "install 'k3dn_plugin[raw]'") from None
    if not hasattr(rawpy.RawPy, "set_unpack_params"):
        found = getattr(rawpy, "__version__", "")
        raise DependencyError(f"rawpy {found} cannot choose the second frame of a raw file; it needs "
                              f"{LEAST_RAWPY} or later: pip install -U 'k3dn_plugin[raw]'")
    return rawpy


def read_frame(path: Path, number: int) -> RawFrame:
    """Read a raw frame of a file.

    Raises:
        NoSuchFrameError: the file has fewer frames.
        DataError: LibRaw cannot read the file, or its frame is no mosaic of one number a pixel.
        DependencyError: see `import_rawpy`.
    """
    rawpy = import_rawpy()
    handle = rawpy.RawPy()
    try:
        handle.set_unpack_params(shot_select=number)  # before opening, see above
        with _silent():
            handle.open_file(str(path))
            handle.unpack()
        mosaic = handle.raw_image
        if mosaic is None or handle.raw_type != rawpy.RawType.Flat:
            raise DataError(f"{path}: its raw frames are not a mosaic of one number a pixel (a reduced raw size, or "
                            "an already developed picture); expected full-size raw. Choose RAW with Dual Pixel RAW in "
                            "the camera")
        whites = [white for white in handle.camera_white_level_per_channel or () if white > 0]
        return RawFrame(mosaic.copy(), handle.raw_colors, tuple(map(int, handle.black_level_per_channel)),
                        int(min([handle.white_level, *whites])), handle)
    except rawpy.LibRawRequestForNonexistentImageError:
        raise NoSuchFrameError(f"{path}: there is no raw frame {number}") from None
    except rawpy.LibRawTooBigError:
        raise DataError(f"{path}: it claims more pixels than LibRaw reads (2 GiB). The file is damaged; copy it from "
                        "the camera again") from None
    except (rawpy.LibRawError, rawpy.NotSupportedError, MemoryError) as error:
        raise DataError(f"{path}: raw frame {number} cannot be read ({_reason(error)}). The file is damaged or cut "
                        "off, or of a camera that this LibRaw does not know; copy it from the camera again, or update "
                        "rawpy") from None


def white_balance(frame: RawFrame) -> tuple[float, ...]:
    """Return the multipliers of the camera's white balance, of daylight where it states none, else all ones."""
    for stated in (frame.handle.camera_whitebalance, frame.handle.daylight_whitebalance):
        if stated is not None and min(stated[:3]) > 0:
            red, green, blue, other = (float(number) for number in stated)
            return red, green, blue, other or green
    return 1.0, 1.0, 1.0, 1.0


def develop(frame: RawFrame, light: np.ndarray, *, white: int, balance: tuple[float, ...]) -> np.ndarray:
    """Develop a mosaic as LibRaw does: white balance, demosaicing, the camera's colors to sRGB primaries.

    Nothing depends on what the mosaic shows: no automatic brightness, no maximum taken from the data. So views that
    are developed with one `balance` and one `white` can be compared.

    Args:
        frame: whose camera and filters are meant; its handle's numbers are overwritten.
        light: (H, W) numbers without black level, as large as `frame.mosaic`.
        white: the number that becomes white; larger ones are clipped.
        balance: multipliers of red, green, blue and second green.

    Returns:
        (h, w, 3) uint16, linear, in the sensor's orientation, without the masked border.
    """
    rawpy = import_rawpy()
    frame.handle.raw_image[:] = np.clip(light, 0, white).astype(np.uint16)
    try:
        return frame.handle.postprocess(
            output_bps=16, gamma=(1, 1), no_auto_bright=True, adjust_maximum_thr=0.0, user_flip=0,
            user_wb=list(balance), user_black=0, user_cblack=[0, 0, 0, 0], user_sat=white,
            output_color=rawpy.ColorSpace.sRGB, highlight_mode=rawpy.HighlightMode.Clip)
    except (rawpy.LibRawError, MemoryError) as error:
        raise DataError(f"LibRaw could not develop the frame ({_reason(error)})") from None


def visible_part(frame: RawFrame) -> tuple[slice, slice]:
    """Return where in the mosaic the developed picture lies."""
    sizes = frame.handle.sizes
    return (slice(sizes.top_margin, sizes.top_margin + sizes.height),
            slice(sizes.left_margin, sizes.left_margin + sizes.width))


def camera_crop(frame: RawFrame) -> tuple[slice, slice] | None:
    """Return the part of the developed picture that the camera's own pictures show; None where the file states none."""
    sizes = frame.handle.sizes
    top, left = sizes.crop_top_margin - sizes.top_margin, sizes.crop_left_margin - sizes.left_margin
    rows, columns = sizes.crop_height, sizes.crop_width
    inside = top >= 0 and left >= 0 and top + rows <= sizes.height and left + columns <= sizes.width
    if not inside or rows < sizes.height // 2 or columns < sizes.width // 2:
        return None
    return slice(top, top + rows), slice(left, left + columns)


def shot_facts(frame: RawFrame) -> dict[str, Any]:
    """Return what the file says of the shot, for the record; what it does not say is left out."""
    other, lens = frame.handle.other, frame.handle.lens
    facts = {"iso": other.iso_speed, "exposure_s": other.shutter_speed, "aperture": other.aperture,
             "focal_length_mm": other.focal_length, "lens": lens.model}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in facts.items() if value}




@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what LibRaw itself writes to stderr about damaged data from the user: an error follows that says more."""
    with _STDERR, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a process without stderr
            kept = os.dup(2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        yield


def _reason(error: BaseException) -> str:
    argument = error.args[0] if error.args else type(error).__name__
    return argument.decode("latin-1") if isinstance(argument, bytes) else str(argument)
