"""PFM files: float maps as DDDNet's data set has them."""
from pathlib import Path

import numpy as np

from k3dn_plugin.errors import DataError


def read_pfm(path) -> np.ndarray:
    """Read a single-channel PFM file as (H, W) float32, first row on top.

    The file begins with `Pf`, width and height, and a scale whose sign tells the byte order (negative: little-
    endian); rows follow from the bottom up.

    Raises:
        DataError: no such file, another kind of file, or one that is cut off.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    words, place = [], 0
    while len(words) < 4 and place < min(len(data), 200):
        end = next((i for i in range(place, min(len(data), 200)) if data[i:i + 1].isspace()), len(data))
        if end > place:
            words.append(data[place:end])
        place = end + 1
    try:
        kind, width, height, scale = words[0], int(words[1]), int(words[2]), float(words[3])
    except (IndexError, ValueError):
        raise DataError(f"{path}: expected a PFM file (Pf, width, height, scale, numbers); its beginning is "
                        f"{data[:20]!r}") from None
    if kind != b"Pf" or min(width, height) < 1 or scale == 0:
        raise DataError(f"{path}: expected a single-channel PFM file (Pf); found {kind!r}, {width} x {height}, "
                        f"scale {scale}")
    needed = 4 * width * height
    if len(data) - place < needed:
        raise DataError(f"{path}: the PFM file is cut off: {len(data) - place:,} bytes of numbers, {needed:,} "
                        "expected; copy or download it again")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", width * height, place)
    return np.ascontiguousarray(values.reshape(height, width)[::-1], np.float32)
