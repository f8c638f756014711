"""Before and after in one look: a picture of both, and a page with a slider that needs nothing but a browser."""
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from k3dn_plugin.data.collage import beside, captioned, eight_bits, stacked
from k3dn_plugin.data.image_metadata import ImageMetadata
from k3dn_plugin.data.images import encode_image, write_image
from k3dn_plugin.files import atomic_write

PANEL, DETAIL = 900, 300    # longest side of a panel of the picture; side of the details in it, in pixels
PAGE = 2560                 # longest side of the page's pictures
QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)
TEMPLATE = "before_after.html.j2"


def upright(image: torch.Tensor, *, orientation: int = 1, quarter_turns: int = 0) -> np.ndarray:
    """Return (1, 3, H, W) in [0, 1] as it is to be looked at: (H, W, 3) uint8, standing upright.

    Args:
        orientation: as EXIF numbers it, of the file. quarter_turns: counter-clockwise.
    """
    return turned(eight_bits(image[0].detach().cpu().permute(1, 2, 0).float().numpy()), orientation=orientation,
                  quarter_turns=quarter_turns)


def turned(picture: np.ndarray, *, orientation: int = 1, quarter_turns: int = 0) -> np.ndarray:
    """Return a picture (H, W, 3) standing upright; arguments as for `upright`."""
    picture = np.rot90(picture, quarter_turns)
    # Odd and even numbers: mirrored or not; in pairs: by 0, 180, 90 and 270 degrees.
    ways = {1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1],
            5: picture.transpose(1, 0, 2), 6: np.rot90(picture, -1), 7: picture[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(picture)}
    return np.ascontiguousarray(ways[orientation])


def write_preview(path: str | Path, before: np.ndarray, after: np.ndarray, *, profile: bytes | None = None) -> None:
    """Write a picture of both, reduced, above the detail that changed most, at its own size.

    Args:
        before, after: (H, W, 3) uint8.
        profile: color profile of both.

    Raises:
        StorageError: the file cannot be written.
    """
    place = most_changed(before, after)
    pairs = [[reduced(one, PANEL) for one in (before, after)],
             [np.ascontiguousarray(one[place]) for one in (before, after)]]
    whole = beside([captioned(one, text) for one, text in zip(pairs[0], ("before", "after"), strict=True)])
    rows, columns = place
    where = f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"
    detail = beside([captioned(one, text) for one, text in zip(pairs[1], (where, "the same"), strict=True)])
    write_image(path, stacked([whole, detail]), ImageMetadata(profile))


def write_page(path: str | Path, before: np.ndarray, after: np.ndarray, *, title: str, facts: Mapping[str, str],
               profile: bytes | None = None) -> None:
    """Write one HTML file with both pictures in it, a slider between them and zoom; by pointer, touch or keys.

    Args:
        before, after: (H, W, 3) uint8; reduced where their longest side exceeds 2560 pixels.
        facts: what is written below, by its name.
        profile: color profile of both.

    Raises:
        StorageError: the file cannot be written.
    """
    shown = [reduced(one, PAGE) for one in (before, after)]
    height, width = shown[0].shape[:2]
    if shown[0].shape != before.shape:
        facts = {**facts, "on this page": f"reduced to {width} x {height} pixels, JPEG; the result's file has all"}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True)
    text = environment.get_template(TEMPLATE).render(
        title=title, facts=facts, width=width, height=height,
        **{name: _url(one, profile) for name, one in zip(("before", "after"), shown, strict=True)})
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)


def reduced(image: np.ndarray, longest: int) -> np.ndarray:
    """Return a picture whose longest side is at most `longest` pixels, by averaging areas."""
    factor = longest / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(round(side * factor), 1) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def most_changed(before: np.ndarray, after: np.ndarray, side: int = DETAIL) -> tuple[slice, slice]:
    """Return rows and columns of the window, at most `side` pixels wide and high, that restoring changed most."""
    changed = np.abs(after.astype(np.int16) - before).mean(-1, dtype=np.float32)
    size = [min(side, length) for length in changed.shape]
    # Anchored at its top left corner, so that the place of a mean is its window's.
    means = cast("np.ndarray", cv2.blur(changed, (size[1], size[0]), anchor=(0, 0)))
    means = means[:changed.shape[0] - size[0] + 1, :changed.shape[1] - size[1] + 1]
    top, left = np.unravel_index(int(means.argmax()), means.shape)
    return slice(int(top), int(top) + size[0]), slice(int(left), int(left) + size[1])


def _url(image: np.ndarray, profile: bytes | None) -> str:
    data = encode_image(image, ".jpg", options=QUALITY, metadata=ImageMetadata(profile))
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
