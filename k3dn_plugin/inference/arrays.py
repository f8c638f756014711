"""Pictures as NumPy arrays in and out: the caller's type and number of channels, checked on the way in."""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from k3dn_plugin.errors import DataError, SizeError

INTEGERS = (np.uint8, np.uint16)
FLOATS = (np.float16, np.float32, np.float64)
STRIP = 64                # rows that are turned into numbers of another type at a time
PLAUSIBLE = (-0.5, 1.5)   # floats around [0, 1]: interpolation overshoots, 0 to 255 is another unit


@dataclass(frozen=True)
class ArrayForm:
    """What the caller's arrays looked like, so that the result looks the same.

    Attributes:
        dtype: of the arrays, in their byte order.
        channels: 3, 1 for (H, W, 1), or 0 for (H, W).
    """

    dtype: np.dtype
    channels: int

    def array(self, image: torch.Tensor) -> np.ndarray:
        """Turn (1, 3, H, W) in the units of [0, 1] into a picture: clamped to [0, 1], integers rounded.

        A gray picture is the mean of the three channels.
        """
        array = np.empty((*image.shape[-2:], *([self.channels] if self.channels else [])), self.dtype)
        for rows, part in strips(image):
            numbers = part if self.channels == 3 else part.mean(-1, keepdims=self.channels == 1)
            array[rows] = np.round(numbers * np.iinfo(self.dtype).max) if self.dtype.kind == "u" else numbers
        return array


def strips(image: torch.Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """Iterate over (1, 3, H, W) in strips: its rows, and they as (rows, W, 3) float64, clamped to [0, 1].

    A whole frame in float64 would take a gigabyte and more, beside what memory bounds count.
    """
    for top in range(0, image.shape[-2], STRIP):
        rows = slice(top, top + STRIP)
        yield rows, image[0, :, rows].detach().cpu().double().clamp(0, 1).permute(1, 2, 0).numpy()


def pair_from_arrays(left: np.ndarray, right: np.ndarray,
                     center: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor | None, ArrayForm]:
    """Return `lq` (1, 6, H, W), `center` (1, 3, H, W) or None, both float32 in [0, 1], and the form of the arrays.

    Args:
        left, right, center: (H, W, 3) RGB, or gray as (H, W) or (H, W, 1); uint8 or uint16 at full scale, or floats
            in [0, 1]; all alike.

    Raises:
        SizeError: an array has another shape, or no pixel.
        DataError: the type is another, the views differ in shape or type, or a float is not finite or far from [0, 1].
    """
    views = {"left": left, "right": right, **({} if center is None else {"center": center})}
    arrays = {name: _checked(name, view) for name, view in views.items()}
    first = arrays["left"]
    for name, array in arrays.items():
        for what, one, other in (("shape", first.shape, array.shape), ("type", first.dtype, array.dtype)):
            if one != other:
                raise DataError(f"the views differ in {what}: left has {one}, {name} has {other}. Both must come from "
                                "one shot, converted alike")
    form = ArrayForm(first.dtype, 0 if first.ndim == 2 else first.shape[2])
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    return torch.cat([tensors["left"], tensors["right"]], 1), tensors.get("center"), form


def _checked(name: str, view: object) -> np.ndarray:
    if isinstance(view, torch.Tensor):
        raise DataError(f"{name}: expected a NumPy array (H, W, 3); found a torch tensor. Use restore_tensor(lq, "
                        "center) for (B, 6, H, W) tensors in [0, 1]")
    try:
        array = np.asarray(view)
    except ValueError as error:  # a list of rows of unequal length
        raise DataError(f"{name}: expected a NumPy array (H, W, 3); found {type(view).__name__} ({error})") from error
    if array.dtype.newbyteorder("=") not in [np.dtype(known) for known in (*INTEGERS, *FLOATS)]:
        raise DataError(f"{name}: expected uint8 or uint16 at full scale, or floats in [0, 1]; found {array.dtype}"
                        + (f" ({type(view).__name__})" if not isinstance(view, np.ndarray) else ""))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise SizeError(f"{name}: expected (H, W, 3), or (H, W) in gray; found {array.shape}. "
                        + ("Drop the alpha channel: view[..., :3]" if array.ndim == 3 and array.shape[2] == 4 else
                           "Channels come last, one picture a call"))
    if 0 in array.shape:
        raise SizeError(f"{name}: expected a picture; found one of shape {array.shape}, without a pixel")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            wrong = int(array.size - np.isfinite(array).sum())
            raise DataError(f"{name}: {wrong:,} of its {array.size:,} values are not finite (NaN or infinite); replace "
                            "them before restoring, since they would spread over the picture")
        if low < PLAUSIBLE[0] or high > PLAUSIBLE[1]:
            raise DataError(f"{name}: expected floats in [0, 1]; found {low:.4g} to {high:.4g}. Divide by the largest "
                            "value that the camera gives (255, 65535, the white level)")
    return array


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Turn (H, W) or (H, W, C) into (1, 3, H, W) float32 in [0, 1]; one channel serves as all three."""
    scale = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    planes = (array[..., None] if array.ndim == 2 else array).transpose(2, 0, 1).astype(np.float32) / np.float32(scale)
    return torch.as_tensor(np.ascontiguousarray(planes)).expand(3, -1, -1)[None]
