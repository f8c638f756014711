"""Depth and disparity files: 16-bit PNG, PFM, NumPy arrays, SYNTHIA-SF's encoded colors."""
import math
from pathlib import Path

import cv2
import numpy as np

from k3dn_plugin.array_files import read_array
from k3dn_plugin.data.images import read_image
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import read_file

SUFFIXES = (".png", ".tif", ".tiff", ".pfm", ".npy")
MILLIMETRES = 1000.0
MOST_BYTES = 2**30
FARTHEST = 250.0  # meters, of SYNTHIA-SF as RDPD reads it


def read_depth(path: str | Path, *, scale: float | None = None, encoding: str = "plain") -> np.ndarray:
    """Return (H, W) float32 of a depth or disparity file; what is unknown (0, negative, not finite) is nan.

    Args:
        path: PFM or .npy, taken as they are; 16-bit gray PNG or TIFF, divided by 1000 (millimeters, as NYU
            and most depth cameras store them).
        scale: what the numbers are divided by instead.
        encoding: "plain", or "synthia" for the colors of SYNTHIA-SF.

    Raises:
        DataError: no such file, damaged, or not a depth file at all.
        OptionError: a scale that is not above 0.
    """
    path = Path(path)
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise OptionError(f"scale of depth files {scale}: expected a number above 0")
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
                            "of depth exchanged? (8-bit depth needs a scale; SYNTHIA-SF's colors need the "
                            "encoding 'synthia')")
        depth, usual = image[..., 0], MILLIMETRES
    with np.errstate(over="ignore"):  # what float32 cannot hold is not known
        depth = depth.astype(np.float32) / np.float32(scale or usual)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def read_pfm(path: str | Path) -> np.ndarray:
    """Read a single-channel PFM file as (H, W) float32, first row on top; its scale's size is ignored.

    Raises:
        DataError: no such file, cut off, or not a single-channel PFM.
    """
    path = Path(path)
    data = read_file(path, most=MOST_BYTES)
    header = data[:200].split(maxsplit=4)
    try:
        kind, columns, rows, scale = header[0], int(header[1]), int(header[2]), float(header[3])
    except (IndexError, ValueError):
        kind = b""
    if kind != b"Pf" or min(columns, rows) < 1 or not scale or not math.isfinite(scale):
        raise DataError(f"{path}: expected a PFM file of one channel (Pf, width, height, scale, numbers); its "
                        f"beginning is {data[:20]!r}")
    # Before OpenCV makes room for what the header promises.
    if len(data) < 4 * rows * columns:
        raise DataError(f"{path}: the PFM file is cut off: {rows} x {columns} numbers were promised, at most "
                        f"{len(data) // 4:,} are there; copy or download it again")
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise DataError(f"{path}: the PFM file is cut off or damaged: {rows} x {columns} numbers were promised; copy "
                        "or download it again")
    # OpenCV divides by the scale, which no data set here means so.
    return values * np.float32(abs(scale))


def decode_depth(image: np.ndarray) -> np.ndarray:
    """Return (H, W) meters, at most 250, of a SYNTHIA-SF depth file: (H, W, 3) uint8 in the order R, G, B."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"SYNTHIA-SF depth is (H, W, 3) uint8, found {image.shape} of {image.dtype}")
    red, green, blue = (image[..., i].astype(np.float64) for i in range(3))
    return np.minimum(1000 * (red + 256 * green + 65536 * blue) / (256 ** 3 - 1), FARTHEST)


def _read_npy(path: Path) -> np.ndarray:
    depth = np.squeeze(read_array(path, "a depth map", most=MOST_BYTES))
    if depth.ndim != 2 or depth.dtype == bool:
        raise DataError(f"{path}: expected an (H, W) array of numbers, found {depth.shape} of {depth.dtype}")
    return depth
