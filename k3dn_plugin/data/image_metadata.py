"""How an image file is to be shown: its color profile and orientation, read from one file and written to another.

Pixels are never changed here: dual-pixel views stay as they lie on the sensor, and a result that is to look like its
input has to carry the input's profile and orientation.
"""
import io
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from k3dn_plugin.data.tiff import SIGNATURES as TIFF_SIGNATURES
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import read_file

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_ORIENTATION = 0x112
_MOST_PROFILE = 2**24
_JPEG_PART = 65519  # bytes of a profile that one segment of a JPEG file holds


@dataclass(frozen=True)
class ImageMetadata:
    """What the pixels of a file do not say.

    Attributes:
        profile: ICC color profile, or None.
        orientation: as EXIF numbers it; 1 is upright.
    """

    profile: bytes | None = None
    orientation: int = 1

    def __bool__(self) -> bool:
        return self.profile is not None or self.orientation != 1


def read_metadata(path: str | os.PathLike[str]) -> ImageMetadata:
    """Return the color profile and orientation of a PNG, JPEG or TIFF file; those of other files are not known.

    Raises:
        DataError: the file cannot be read.
    """
    from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin  # takes time to import, and stores hold none
    data = read_file(path)
    openers = ((PNG, PngImagePlugin.PngImageFile), (JPEG, JpegImagePlugin.JpegImageFile),
               *((signature, TiffImagePlugin.TiffImageFile) for signature in TIFF_SIGNATURES))
    opener = next((one for signature, one in openers if data.startswith(signature)), None)
    if opener is None:
        return ImageMetadata()
    try:
        with opener(io.BytesIO(data)) as image:
            profile, orientation = image.info.get("icc_profile"), image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises whatever its parser runs into; the pixels were read and are good
        return ImageMetadata()
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    sound = isinstance(profile, bytes) and 128 <= len(profile) <= _MOST_PROFILE
    return ImageMetadata(profile if sound else None, orientation if known else 1)


def can_hold_metadata(suffix: str) -> bool:
    """Return whether files of this suffix can hold a profile and an orientation."""
    return suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def with_metadata(data: bytes, metadata: ImageMetadata) -> bytes:
    """Return the content of a PNG or JPEG file that has neither, with profile and orientation put in.

    Raises:
        DataError: it is a file of another format.
    """
    if not metadata:
        return data
    if data.startswith(PNG):
        place = len(PNG) + 25  # after the header chunk
        parts = _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(metadata.profile)) if metadata.profile else b""
        parts += _png_chunk(b"eXIf", _exif(metadata.orientation)) if metadata.orientation != 1 else b""
        return data[:place] + parts + data[place:]
    if data.startswith(JPEG):
        place = len(JPEG)
        if data[place:place + 2] == b"\xff\xe0":  # the JFIF segment comes first
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        parts = _segment(0xE1, b"Exif\0\0" + _exif(metadata.orientation)) if metadata.orientation != 1 else b""
        profile = metadata.profile or b""
        count = -(-len(profile) // _JPEG_PART)
        for number in range(count):
            piece = profile[number * _JPEG_PART:(number + 1) * _JPEG_PART]
            parts += _segment(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, count]) + piece)
        return data[:place] + parts + data[place:]
    raise DataError("a profile and an orientation can be put into PNG and JPEG files only")


def encode_tiff(image: np.ndarray, metadata: ImageMetadata) -> bytes:
    """Return a TIFF file of (H, W, 3) or (H, W) integers with profile and orientation."""
    import tifffile  # takes a tenth of a second, and most files are PNG
    file = io.BytesIO()
    orientation = [(274, 3, 1, metadata.orientation, True)] if metadata.orientation != 1 else []
    tifffile.imwrite(file, image, photometric="rgb" if image.ndim == 3 else "minisblack", compression="deflate",
                     predictor=True, metadata=None, iccprofile=metadata.profile, extratags=orientation)
    return file.getvalue()


def _exif(orientation: int) -> bytes:
    """Return EXIF data of one entry."""
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", _ORIENTATION, 3, 1, orientation, 0) + b"\0\0\0\0"


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
