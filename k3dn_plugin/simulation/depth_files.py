"""Depth and disparity files: 16-bit PNG, PFM, NumPy arrays, SYNTHIA-SF's encoded colours."""
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import read_image
from k3dn_plugin.errors import DataError
from k3dn_plugin.simulation.rdpd import decode_depth

SUFFIXES = (".png", ".tif", ".tiff", ".pfm", ".npy")
MILLIMETRES = 1000.0


def read_depth(path, *, scale: float | None = None, encoding: str = "plain") -> np.ndarray:
    """(H, W) float32 of a depth or disparity file; what is unknown (0, negative, not finite) is nan.

    Args:
        path: PFM or .npy, taken as they are; 16-bit gray PNG or TIFF, divided by 1000 (millimetres, as NYU
            and most depth cameras store them).
        scale: what the numbers are divided by instead.
        encoding: "plain", or "synthia" for the colours of SYNTHIA-SF.

    Raises:
        DataError: no such file, damaged, or not a depth file at all.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        depth, usual = _read_npy(path), 1.0
    elif suffix == ".pfm":
        depth, usual = read_pfm(path), 1.0
    elif encoding == "synthia":
        depth, usual = decode_depth(read_image(path)), 1.0
    else:
        image = read_image(path, gray=True)
        if image.shape[2] != 1 or (image.dtype != np.uint16 and scale is None):
            raise DataError(f"{path}: expected depth, (H, W) of 16 bits, found {image.shape[2]} channel"
                            f"{'s' * (image.shape[2] > 1)} of {image.dtype}. Are the folders of photographs and "
                            "of depth exchanged? (8-bit depth needs a scale; SYNTHIA-SF's colours need the "
                            "encoding 'synthia')")
        depth, usual = image[..., 0], MILLIMETRES
    depth = depth.astype(np.float32) / np.float32(scale or usual)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def read_pfm(path) -> np.ndarray:
    """(H, W) float32 of a gray PFM file, upper row first.

    Raises:
        DataError: no such file, cut off, or not a gray PFM.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    header = data.split(maxsplit=4)[:4] if data[:2] == b"Pf" else []
    try:
        columns, rows, scale = int(header[1]), int(header[2]), float(header[3])
    except (IndexError, ValueError):
        raise DataError(f"{path}: not a gray PFM file (expected 'Pf', width, height, scale)") from None
    # One white space ends the header; the numbers that follow may look like white space themselves.
    begin = data.index(header[3], data.index(header[2], data.index(header[1], 2) + len(header[1]))
                       + len(header[2])) + len(header[3]) + 1
    if len(data) - begin < 4 * rows * columns:
        raise DataError(f"{path}: the PFM file is cut off: {rows} x {columns} numbers were promised, "
                        f"{(len(data) - begin) // 4} are there")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", rows * columns, begin)
    return values.reshape(rows, columns)[::-1].astype(np.float32)


def _read_npy(path):
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an array that can be read ({error})") from None
    depth = np.squeeze(depth)
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected an (H, W) array of numbers, found {depth.shape} of {depth.dtype}")
    return depth
