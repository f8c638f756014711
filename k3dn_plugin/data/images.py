"""Image files in and out, at their own bit depth, RGB, and never half of one.

OpenCV gives the part of a cut-off file that it could decode, without a word. So a file's structure is
checked before its pixels are believed.
"""
import io
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from k3dn_plugin.data.image_metadata import (
    MOST_TEXT,
    ImageMetadata,
    can_hold_metadata,
    encode_tiff,
    long_png_texts,
    profile_fits,
    with_metadata,
)
from k3dn_plugin.data.tiff import SIGNATURES as TIFF_SIGNATURES
from k3dn_plugin.data.tiff import decode_tiff, raw_file
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import atomic_write, read_file

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
FULL_SCALE = {"uint8": 255, "uint16": 65535, "float32": 1}
MOST_DECODED = 2**30  # bytes of a decoded picture: 178 megapixels of 16-bit RGB

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_PNG_TEXTS = (b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf")
_LONG_TEXT = 2**20   # bytes of a chunk; OpenCV refuses a file that has one of eight times as many
_MOST_DEFLATED = 1040  # bytes that one deflated byte can stand for: 1032 and the first ones
_AGAIN = "copy or download it again"


@runtime_checkable
class HasContent(Protocol):
    """Stands where the path of a picture does and gives the file's content itself: a picture in a shard."""

    def read_bytes(self) -> bytes:
        """Return the content of the file."""
        ...


def read_image(path: str | os.PathLike[str], *, bits: int | None = None, gray: bool = False) -> np.ndarray:
    """Read an image file as (H, W, 3) RGB, uint8 or uint16 as the file has it.

    Args:
        path: PNG, TIFF, JPEG or BMP, or a picture inside another file (`ParquetImage`). An alpha channel is
            dropped, a single channel repeated; rotation tags are ignored (the disparity lies along the sensor's
            rows).
        bits: the depth that was promised, 8 or 16; None takes either.
        gray: give a single-channel file as (H, W, 1).

    Raises:
        DataError: no such file, not an image, cut off or damaged, larger than memory should hold, or of another
            bit depth.
    """
    if not isinstance(path, HasContent):
        path = Path(path)
    if isinstance(path, Path):
        if not os.path.lexists(path):
            raise DataError(f"there is no image {path}")
        data = read_file(path, most=MOST_DECODED)
    else:
        data = path.read_bytes()
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


def decode_image(data: bytes, name: object) -> np.ndarray:
    """Decode an image file's content to (H, W, 3) RGB or (H, W, 1); `name` is for messages.

    Raises:
        DataError: as `read_image`.
    """
    if not data:
        raise DataError(f"{name}: the file is empty; {_AGAIN}")
    if data[:4] in TIFF_SIGNATURES:
        return decode_tiff(data, name, most_bytes=MOST_DECODED)
    if data[4:12] == b"ftypcrx ":   # CR3
        raise raw_file(name)
    if data[:2] == b"P5":
        raise DataError(f"{name}: expected a picture, found a PGM file. Where a camera's app wrote it, it is one of a "
                        "pair in linear light: give it alone, without --left and --right. Otherwise save it as PNG")
    import cv2  # heavy
    check_whole(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(_without_long_texts(data), np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        reason = next((line for line in str(error).splitlines() if line), "no reason given")
        raise DataError(f"{name}: OpenCV refuses to decode it ({reason[-120:]}); the file claims too many pixels or is "
                        f"damaged: {_AGAIN}") from None
    if image is None:
        raise _no_image(name)
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: expected 8 or 16 bits a channel, the file has {image.dtype}")
    if image.ndim == 2:
        return image[..., None]
    return np.ascontiguousarray(image[..., 2::-1]) if image.shape[2] >= 3 else image[..., :1].copy()


def check_whole(data: bytes, name: object) -> None:
    """Raise `DataError` where a PNG, JPEG or BMP file ends early, is damaged or claims too many pixels."""
    if data.startswith(_PNG_SIGNATURE):
        _check_png(data, name)
    elif data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, name)
    elif data.startswith(b"BM"):
        _check_bmp(data, name)
    else:
        raise _no_image(name)


def _check_png(data: bytes, name: object) -> None:
    from PIL.PngImagePlugin import PngImageFile  # takes time to import, and stores hold no PNG
    size = data[16:26] if data[12:16] == b"IHDR" else b""
    if len(size) == 10:
        columns, rows, depth, color = struct.unpack(">IIBB", size)
        claimed = rows * columns * depth * _PNG_CHANNELS.get(color, 1) // 8
        _check_size(columns, rows, claimed, name)
        if claimed > _MOST_DEFLATED * len(data):
            raise DataError(f"{name}: the PNG file is damaged: it claims {columns} x {rows} pixels and holds "
                            f"{len(data):,} bytes of them; {_AGAIN}")
    try:
        with long_png_texts():
            image = PngImageFile(io.BytesIO(data))
    except Exception as error:  # Pillow raises whatever its parser runs into
        if "MAX_TEXT" in str(error):
            raise DataError(f"{name}: the PNG file holds texts or a color profile of more than {MOST_TEXT:,} bytes; "
                            "take them out, or save it again without them") from None
        raise DataError(f"{name}: not an image that can be read, or a damaged one ({_short(error)}); "
                        f"{_AGAIN}") from None
    try:
        image.verify()
    except Exception as error:
        if "checksum" in str(error):
            raise DataError(f"{name}: the PNG file is damaged (the checksum of a part is wrong); {_AGAIN}") from None
        raise DataError(f"{name}: the PNG file is cut off after {len(data):,} bytes, or damaged; {_AGAIN}") from None


def _without_long_texts(data: bytes) -> bytes:
    """Return a PNG file that `_check_png` has passed without its long texts and profile; other files as they are."""
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept, begin, place = [], 0, len(_PNG_SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind in _PNG_TEXTS and length > _LONG_TEXT:
            kept.append(data[begin:place])
            begin = end
        place = end
    return b"".join([*kept, data[begin:]]) if kept else data


def _check_jpeg(data: bytes, name: object) -> None:
    from PIL.JpegImagePlugin import JpegImageFile  # takes time to import, and stores hold no JPEG
    try:
        image = JpegImageFile(io.BytesIO(data))
        _check_size(*image.size, image.size[0] * image.size[1] * len(image.getbands()), name)
        # Decoded at an eighth of the size: that reads all of the compressed data and no more than them, so that what
        # follows the picture (the video of a motion photo) does not matter.
        image.draft("L", (1, 1))
        image.load()
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its parser runs into
        raise DataError(f"{name}: the JPEG file is cut off or damaged ({_short(error)}); {_AGAIN}") from None


def _check_bmp(data: bytes, name: object) -> None:
    if len(data) < 54:
        raise DataError(f"{name}: the BMP file is cut off; {_AGAIN}")
    start, header, columns, rows = struct.unpack_from("<IIii", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if header < 40:
        raise _no_image(name)
    rows = abs(rows)
    _check_size(columns, rows, columns * rows * 3, name)
    if compression in (0, 3) and start + rows * ((columns * bits + 31) // 32 * 4) > len(data):
        raise DataError(f"{name}: the BMP file is cut off: it claims {columns} x {rows} pixels; {_AGAIN}")


def _check_size(columns: int, rows: int, size: int, name: object) -> None:
    if columns < 1 or rows < 1 or size > MOST_DECODED:
        raise DataError(f"{name}: the file claims {columns} x {rows} pixels; at least one and at most "
                        f"{MOST_DECODED:,} bytes of them are read. It is damaged, or has to be cut into pieces")


def _no_image(name: object) -> DataError:
    return DataError(f"{name}: not an image that can be read ({', '.join(IMAGE_SUFFIXES)}), or a damaged one; {_AGAIN}")


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def write_image(path: str | os.PathLike[str], image: np.ndarray, metadata: ImageMetadata | None = None) -> None:
    """Write (H, W, 3) RGB or (H, W) gray, uint8 or uint16, in the format of the path's suffix.

    The file is whole or not there. A uint16 array makes a 16-bit PNG or TIFF. Color profile and orientation go with it
    where the format can hold them (`can_hold_metadata`) and the profile is for such pixels.

    Raises:
        DataError: another dtype or shape, or a format that cannot hold it.
        StorageError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, path, metadata=metadata)
    with atomic_write(path) as file:
        file.write(data)


def encode_image(image: np.ndarray, suffix: str, name: object = "image", options: tuple[int, ...] = (),
                 metadata: ImageMetadata | None = None) -> bytes:
    """Return the content of an image file; `options` are OpenCV's write flags, the rest is as for `write_image`."""
    import cv2  # heavy
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or (
            image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise DataError(f"{name}: expected (H, W, 3) or (H, W) of uint8 or uint16 to write, found "
                        f"{image.shape} of {image.dtype}")
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{name}: no image format for the suffix {suffix!r}; use one of "
                        f"{', '.join(IMAGE_SUFFIXES)}")
    if image.dtype == np.uint16 and suffix.lower() in (".jpg", ".jpeg", ".bmp"):
        raise DataError(f"{name}: {suffix} holds 8 bits only; write a 16-bit image as .png or .tif")
    if metadata and metadata.profile and not profile_fits(metadata.profile, image.shape[2] if image.ndim == 3 else 1):
        metadata = replace(metadata, profile=None)
    if metadata and suffix.lower() in (".tif", ".tiff"):
        return encode_tiff(image, metadata)
    if image.ndim == 3:
        image = image[..., ::-1]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image), list(options))
    if not done:
        raise DataError(f"{name}: OpenCV could not encode {image.shape} of {image.dtype} as {suffix}")
    return with_metadata(data.tobytes(), metadata) if metadata and can_hold_metadata(suffix) else data.tobytes()


def to_float(image: np.ndarray, *, black_level: float = 0, full_scale: float | None = None,
             out: np.ndarray | None = None) -> np.ndarray:
    """Return stored numbers as float32 in [0, 1]: `(value - black_level) / full_scale`, clipped at 0.

    Args:
        image: integers, or floats.
        black_level: subtracted first; what lies below is 0.
        full_scale: the number that stands for 1; None is the largest of the dtype (255, 65535; 1 for floats).
        out: float32 of the image's shape, to be filled instead of a new array.
    """
    out = np.empty(image.shape, np.float32) if out is None else out
    scale = FULL_SCALE[image.dtype.name] if full_scale is None else full_scale
    if black_level:
        image = np.maximum(np.subtract(image, black_level, dtype=np.float32), 0, out=out)
    return np.divide(image, np.float32(scale), out=out, dtype=np.float32)


def has_8_bit_content(image: np.ndarray) -> bool:
    """Return whether 16-bit numbers were made from 8-bit ones: both bytes alike, or the low one empty."""
    if image.dtype != np.uint16:
        return False
    high, low = image >> 8, image & 255
    return bool(high.any()) and (not low.any() or np.array_equal(high, low))


def apparent_full_scale(largest: int) -> int | None:
    """Return the full scale that 16-bit numbers up to `largest` seem to have: 1023, 4095 or 16383; else None."""
    return next((2**bits - 1 for bits in (10, 12, 14) if largest < 2**bits), None)
