"""From linear numbers to the views that are asked for: area shrink, the sRGB curve, 16 bits."""
import functools

import numpy as np

from k3dn_plugin.errors import OptionError

WHITE = 65535


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Return sRGB values in [0, 1] of linear light in [0, 1] (IEC 61966-2-1)."""
    light = np.clip(linear, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def decode_srgb(encoded: np.ndarray) -> np.ndarray:
    """Return linear light in [0, 1] of sRGB values in [0, 1]."""
    values = np.clip(encoded, 0, 1)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def finish_view(view: np.ndarray, *, encoded: bool, light: str, scale: int = 1) -> np.ndarray:
    """Return a view at the wanted scale and in the wanted light.

    Args:
        view: (H, W, C) uint16.
        encoded: whether it is sRGB, not linear.
        light: "srgb" or "linear": what is wanted.
        scale: side of the squares that are averaged, in linear light; see `shrink`.

    Returns:
        (H // scale, W // scale, C) uint16. Untouched numbers where nothing has to change.

    Raises:
        OptionError: the view is smaller than one square.
    """
    if scale > min(view.shape[:2]):
        raise OptionError(f"scale {scale}: the picture has {view.shape[1]} x {view.shape[0]} pixels only")
    if scale > 1:
        linear = shrink(_curve(True)[view] if encoded else view / np.float32(WHITE), scale)
        return to_16_bits(encode_srgb(linear) if light == "srgb" else linear)
    if encoded == (light == "srgb"):
        return view
    return to_16_bits(_curve(encoded))[view]


def shrink(image: np.ndarray, scale: int) -> np.ndarray:
    """Return the means of the `scale` x `scale` squares of an image (H, W, C), float32.

    Rows and columns that do not fill a square are left out at both edges, the odd one at the far edge.
    """
    rows, columns = image.shape[0] // scale, image.shape[1] // scale
    top, left = (image.shape[0] - rows * scale) // 2, (image.shape[1] - columns * scale) // 2
    squares = image[top:top + rows * scale, left:left + columns * scale].astype(np.float32, copy=False)
    return squares.reshape(rows, scale, columns, scale, -1).mean((1, 3))


def shrink_mask(valid: np.ndarray, scale: int) -> np.ndarray:
    """Return which squares of a mask (H, W) are True everywhere; see `shrink`."""
    return shrink(valid[..., None], scale)[..., 0] == 1 if scale > 1 else valid


def to_16_bits(values: np.ndarray) -> np.ndarray:
    """Return values in [0, 1] as uint16, rounded."""
    return np.round(np.clip(values, 0, 1) * WHITE).astype(np.uint16)


@functools.cache
def _curve(decode: bool) -> np.ndarray:
    """The sRGB curve, or its inverse, of every 16-bit number, as float32 in [0, 1]."""
    numbers = np.arange(WHITE + 1) / WHITE
    return (decode_srgb(numbers) if decode else encode_srgb(numbers)).astype(np.float32)
