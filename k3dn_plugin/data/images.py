"""Image files in and out, at their own bit depth, RGB, and never half of one.

OpenCV gives the part of a cut-off file that it could decode, without a word. So a file's structure is
checked before its pixels are believed.
"""
import struct
import zlib
from pathlib import Path

import numpy as np

from k3dn_plugin.errors import DataError
from k3dn_plugin.files import atomic_write

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
FULL_SCALE = {"uint8": 255, "uint16": 65535, "float32": 1}

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_MOST_DEFLATED = 1040  # bytes that one deflated byte can stand for: 1032 and the first ones


def read_image(path, *, bits: int | None = None, gray: bool = False) -> np.ndarray:
    """Read an image file as (H, W, 3) RGB, uint8 or uint16 as the file has it.

    Args:
        path: PNG, TIFF, JPEG or BMP, or a picture inside another file (`ParquetImage`). An alpha channel is dropped, a single channel repeated; rotation
            tags are ignored (the disparity lies along the sensor's rows).
        bits: the depth that was promised, 8 or 16; None takes either.
        gray: give a single-channel file as (H, W, 1).

    Raises:
        DataError: no such file, not an image, cut off or damaged, or of another bit depth.
    """
    path = path if hasattr(path, "read_bytes") else Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no image {path}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    image = decode_image(data, path)
    depth = 8 * image.dtype.itemsize
    if bits is not None and depth != bits:
        advice = ("An 8-bit copy scores differently; use the original 16-bit files, or say that 8 bits are "
                  "meant" if bits == 16 else f"Convert it to {bits} bits, or say that {depth} bits are meant")
        raise DataError(f"{path}: expected {bits} bits a channel, the file has {depth}. {advice} (--bits "
                        f"{depth})")
    if image.shape[2] == 1 and not gray:
        image = np.repeat(image, 3, axis=2)
    return image


def decode_image(data: bytes, name) -> np.ndarray:
    """Decode an image file's content to (H, W, 3) RGB or (H, W, 1); `name` is for messages."""
    import cv2
    if not data:
        raise DataError(f"{name}: the file is empty; copy or download it again")
    check_whole(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # more pixels than OpenCV takes (2^30), or than memory holds
        reason = next((line for line in str(error).splitlines() if line), "no reason given")
        raise DataError(f"{name}: OpenCV refuses to decode it ({reason[-120:]}); the file claims too many pixels or is "
                        "damaged: copy or download it again") from None
    if image is None:
        raise DataError(f"{name}: not an image that can be read ({', '.join(IMAGE_SUFFIXES)}), or a damaged "
                        "one; copy or download it again")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: expected 8 or 16 bits a channel, the file has {image.dtype}")
    if image.ndim == 2:
        return image[..., None]
    return np.ascontiguousarray(image[..., 2::-1]) if image.shape[2] >= 3 else image[..., :1].copy()


def check_whole(data: bytes, name):
    """Raise `DataError` where a PNG or JPEG file ends early or a PNG's checksums disagree."""
    if data.startswith(_PNG_SIGNATURE):
        _check_png(data, name)
    elif data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        # No end-of-image marker after the last start of scan.
        raise DataError(f"{name}: the JPEG file is cut off; copy or download it again")


def _check_png(data, name):
    place = len(_PNG_SIGNATURE)
    stored = 0
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[place + 4:end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise DataError(f"{name}: the PNG file is damaged (the checksum of its {kind.decode('latin-1')} "
                            f"chunk at byte {place} is wrong); copy or download it again")
        stored += length * (kind == b"IDAT")
        if kind == b"IEND" and data[len(_PNG_SIGNATURE) + 4:][:4] == b"IHDR":
            columns, rows, depth, color = struct.unpack_from(">IIBB", data, len(_PNG_SIGNATURE) + 8)
            if rows * columns * depth * _PNG_CHANNELS.get(color, 1) > 8 * _MOST_DEFLATED * stored:
                raise DataError(f"{name}: the PNG file is damaged: it claims {columns} x {rows} pixels and holds "
                                f"{stored:,} bytes of them; copy or download it again")
        if kind == b"IEND":
            return
        place = end
    raise DataError(f"{name}: the PNG file is cut off after {len(data):,} bytes; copy or download it again")


def write_image(path, image: np.ndarray):
    """Write (H, W, 3) RGB or (H, W) gray, uint8 or uint16, in the format of the path's suffix.

    The file is whole or not there. A uint16 array makes a 16-bit PNG or TIFF.

    Raises:
        DataError: another dtype or shape, or a format that cannot hold it.
        StorageError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, path)
    with atomic_write(path) as file:
        file.write(data)


def encode_image(image: np.ndarray, suffix: str, name="image", options: tuple[int, ...] = ()) -> bytes:
    """The content of an image file; `options` are OpenCV's write flags."""
    import cv2
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or (
            image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise DataError(f"{name}: expected (H, W, 3) or (H, W) of uint8 or uint16 to write, found "
                        f"{image.shape} of {image.dtype}")
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{name}: no image format for the suffix {suffix!r}; use one of "
                        f"{', '.join(IMAGE_SUFFIXES)}")
    if image.dtype == np.uint16 and suffix.lower() in (".jpg", ".jpeg", ".bmp"):
        raise DataError(f"{name}: {suffix} holds 8 bits only; write a 16-bit image as .png or .tif")
    if image.ndim == 3:
        image = image[..., ::-1]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image), list(options))
    if not done:
        raise DataError(f"{name}: OpenCV could not encode {image.shape} of {image.dtype} as {suffix}")
    return data.tobytes()


def to_float(image: np.ndarray, *, black_level: float = 0, full_scale: float | None = None) -> np.ndarray:
    """Stored numbers as float32 in [0, 1]: `(value - black_level) / full_scale`, clipped at 0.

    `full_scale` None is the largest number of the dtype (255, 65535; 1 for floats).
    """
    scale = FULL_SCALE[image.dtype.name] if full_scale is None else full_scale
    values = image.astype(np.float32)
    if black_level:
        values = np.maximum(values - np.float32(black_level), 0)
    return values / np.float32(scale) if scale != 1 else values
