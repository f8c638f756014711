"""A sum and one of its sides to two views: pure arithmetic on mosaics, then one development for all of them."""
from pathlib import Path

import cv2
import numpy as np

from k3dn_plugin.data.raw import libraw
from k3dn_plugin.data.raw.base import Views, ViewSettings
from k3dn_plugin.data.raw.light import finish_view, shrink_mask
from k3dn_plugin.errors import DataError, OptionError

DEMOSAIC_REACH = 6        # pixels around a clipped one that its number reaches in LibRaw's demosaicing (AHD)
EXCESS = 0.08             # of the range: by how much a side may exceed the sum through noise, at the highest ISO too
MOST_EXCEEDING = 0.02     # share of the pixels
SHARE_OF_SUM = (0.2, 0.8)  # of one side; lenses with strong vignetting reach 0.3 at the edge
PLATEAU = 0.85            # of the stated white: where the largest number is looked at for clipping


def black_of(colors: np.ndarray, black: tuple[int, ...]) -> np.ndarray:
    """Return the black level of each pixel, (H, W) int32, from its color filter's."""
    levels = np.asarray(black, np.int32)
    return levels[colors] if len(set(black)) > 1 else np.full(colors.shape, levels[0])


def chosen_black(number: int, white: int) -> tuple[int, ...]:
    """Return a black level that the user gives, for each color filter.

    Raises:
        OptionError: nothing would be left below white.
    """
    if number >= white:
        raise OptionError(f"black_level {number}: expected less than {white}, the number at which the sensor is full")
    return (number,) * 4


def estimated_black(total: np.ndarray, side: np.ndarray) -> int:
    """Return the black level that a sum and its side suggest.

    In the other side, their difference, black levels cancel out. Where both are darkest they have about the same
    light, so what the side's numbers have more than the other's is the black level.
    """
    dark, dark_light = np.percentile(side, 0.1), np.percentile(other_side(total, side), 0.1)
    return max(0, round(float(dark - max(dark_light, 0))))


def other_side(total: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Return the light of the other side, (H, W) int32 of any sign: the black levels of both frames cancel out.

    Invalid where the sum is clipped, see `clipped_pixels`.

    Args:
        total: (H, W), the frame that is the sum of both sides, with its black level.
        side: (H, W), the frame of one side, with the same black level.
    """
    return total.astype(np.int32) - side


def clipping_number(total: np.ndarray, white: int) -> int:
    """Return the number at which a sum is full: the stated one, or a smaller one at which its pixels pile up."""
    largest = int(total.max())
    if largest >= white or largest < PLATEAU * white:
        return white
    piled = int((total == largest).sum())
    return largest if piled >= max(16, total.size // 100_000) else white


def clipped_pixels(total: np.ndarray, white: int) -> np.ndarray:
    """Return where the sum is clipped, (H, W) bool."""
    return total >= white


def grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return a mask (H, W) with all pixels within `reach` rows and columns of its own."""
    if not mask.any():
        return mask
    side = 2 * reach + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def check_side(total: np.ndarray, side: np.ndarray, black: np.ndarray, white: int, path: Path, what: str) -> None:
    """Raise where one frame cannot be a side of the sum in the other.

    Args:
        total, side: (H, W), the two frames. black: the black level of each pixel.
        white: at which the sum is full.
        path: for messages. what: the file in words, likewise.

    Raises:
        DataError: frames of two sizes, twice the same, or of other content.
    """
    if total.shape != side.shape:
        raise DataError(f"{path} ({what}): its raw frames are {_size(total)} and {_size(side)}; expected the sum of "
                        "both sides and one side, of one size")
    if np.array_equal(total, side):
        raise DataError(f"{path} ({what}): its two raw frames are identical, so the second is no single side of a "
                        "dual-pixel shot and the views cannot be told apart. Use the file as the camera wrote it")
    light, light_of_side = total.astype(np.int32) - black, side.astype(np.int32) - black
    full = clipped_pixels(total, white)
    if full.all():
        raise DataError(f"{path} ({what}): every pixel is overexposed, so there is nothing to split")
    level = float(light[~full].mean())
    share = float(light_of_side[~full].mean()) / level if level > 0 else 0.0
    exceeding = float((light_of_side > light + EXCESS * (white - black.min()))[~full].mean())
    if exceeding > MOST_EXCEEDING or not SHARE_OF_SUM[0] <= share <= SHARE_OF_SUM[1]:
        raise DataError(f"{path} ({what}): the second raw frame is no side of the first: it has {share:.0%} of its "
                        f"light (about half expected) and exceeds it in {exceeding:.1%} of the pixels. Are these two "
                        "exposures, or is the file damaged? Expected one Dual Pixel RAW shot")


def develop_views(total: libraw.RawFrame, side: np.ndarray, black: tuple[int, ...], settings: ViewSettings,
                  crop: tuple[slice, slice] | None) -> Views:
    """Develop left, right and center view of a sum and one of its sides, all alike.

    Left is the side, right the rest of the sum. Both are doubled, so that they are as bright as the sum. Where the
    sum is clipped all three are white, and `valid` is False there and within the reach of the demosaicing.

    Args:
        total: the frame of the sum; develops.
        side: (H, W), the numbers of the side's frame.
        black: black level by color filter, in both frames.
        settings: light, scale, ...
        crop: part of the developed picture that is kept; None keeps all.

    Raises:
        OptionError: the picture is smaller than one square of `settings.scale`.
    """
    levels = black_of(total.colors, black)
    full = clipping_number(total.mosaic, total.white)
    clipped = clipped_pixels(total.mosaic, full)
    lights = {"left": 2 * (side.astype(np.int32) - levels), "right": 2 * other_side(total.mosaic, side),
              "center": total.mosaic.astype(np.int32) - levels}
    return _developed(total, lights, clipped, full, black, settings, crop)


def develop_sides(left: libraw.RawFrame, right: np.ndarray, settings: ViewSettings,
                  crop: tuple[slice, slice] | None) -> Views:
    """Develop two mosaics that are the views themselves; the center is their mean.

    Args:
        left: the left view's frame; develops. right: (H, W), the numbers of the right one.
        settings: light, scale, ...
        crop: as for `develop_views`.
    """
    levels = black_of(left.colors, left.black)
    one, other = left.mosaic.astype(np.int32) - levels, right.astype(np.int32) - levels
    clipped = (left.mosaic >= left.white) | (right >= left.white)
    lights = {"left": one, "right": other, "center": (one + other + 1) // 2}
    return _developed(left, lights, clipped, left.white, left.black, settings, crop)


def _developed(frame: libraw.RawFrame, lights: dict[str, np.ndarray], clipped: np.ndarray, full: int,
               black: tuple[int, ...], settings: ViewSettings, crop: tuple[slice, slice] | None) -> Views:
    """Views of mosaics without black level, by one white balance and one white for all."""
    white = full - max(black)
    balance = libraw.white_balance(frame)
    # Read before the development, which changes what LibRaw says of orientation and sizes.
    visible = libraw.visible_part(frame)
    facts = {"white_balance": [round(number, 5) for number in balance], "black_level": list(black),
             "white_level": full, "flip": frame.handle.sizes.flip, **libraw.shot_facts(frame)}
    pictures = {}
    for view, light in lights.items():
        light[clipped] = white
        picture = libraw.develop(frame, light, white=white, balance=balance)
        pictures[view] = np.ascontiguousarray(finish_view(
            picture if crop is None else picture[crop], encoded=False, light=settings.light, scale=settings.scale))
    valid = ~grown(clipped, DEMOSAIC_REACH)[visible]
    valid = shrink_mask(valid if crop is None else valid[crop], settings.scale)
    return Views(**pictures, light=settings.light, valid=valid, metadata=facts)


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[0]} x {frame.shape[1]} (rows x columns)"
