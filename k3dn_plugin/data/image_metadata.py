"""What an image file says beside its pixels: color profile, orientation and EXIF, read from one, written to another.

Pixels are never changed here: dual-pixel views stay as they lie on the sensor, and a result that is to look like its
input has to carry the input's profile and orientation.
"""
import contextlib
import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from k3dn_plugin.data.exif import EXIF_IFD, GPS_IFD, LONG, ORIENTATION, SHORT, Entry, Exif, directory_bytes, read_exif
from k3dn_plugin.data.tiff import SIGNATURES as TIFF_SIGNATURES
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import read_file

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_MOST_PROFILE = 2**24
MOST_TEXT = 2**26  # bytes of a profile or a text in a PNG file, decompressed; Pillow's own bound is 2**20
_JPEG_PART = 65519  # bytes of a profile that one segment of a JPEG file holds

_text_lock = threading.Lock()
_text_bounds: list[int] = []  # Pillow's own, once for each reader that is at work


@dataclass(frozen=True)
class ImageMetadata:
    """What the pixels of a file do not say.

    Attributes:
        profile: ICC color profile, or None.
        orientation: as EXIF numbers it; 1 is upright.
        exif: what the file says about how the photograph was taken.
    """

    profile: bytes | None = None
    orientation: int = 1
    exif: Exif = Exif()

    def __bool__(self) -> bool:
        return self.decides_the_look or bool(self.exif)

    @property
    def decides_the_look(self) -> bool:
        """Whether the picture looks other than its pixels alone."""
        return self.profile is not None or self.orientation != 1


@contextlib.contextmanager
def long_png_texts() -> Iterator[None]:
    """Let Pillow read profiles and texts of PNG files up to `MOST_TEXT` bytes while the context lasts.

    Its bound is a global of Pillow's; it is as before when the last of several threads has left.
    """
    from PIL import PngImagePlugin  # takes time to import, and stores hold none
    with _text_lock:
        _text_bounds.append(_text_bounds[0] if _text_bounds else PngImagePlugin.MAX_TEXT_CHUNK)
        PngImagePlugin.MAX_TEXT_CHUNK = max(MOST_TEXT, _text_bounds[0])
    try:
        yield
    finally:
        with _text_lock:
            before = _text_bounds.pop()
            if not _text_bounds:
                PngImagePlugin.MAX_TEXT_CHUNK = before


def read_metadata(path: str | os.PathLike[str]) -> ImageMetadata:
    """Return what a PNG, JPEG or TIFF file says beside its pixels; that of other files is not known.

    A raw file that is a TIFF inside (CR2, DNG) says what its first picture, a small one, does.

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
        with long_png_texts(), opener(io.BytesIO(data)) as image:
            profile, orientation = image.info.get("icc_profile"), image.getexif().get(ORIENTATION, 1)
            exif = read_exif(data if opener is TiffImagePlugin.TiffImageFile else image.info.get("exif", b""))
    except Exception:  # Pillow raises whatever its parser runs into; the pixels were read and are good
        return ImageMetadata()
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    sound = isinstance(profile, bytes) and 128 <= len(profile) <= _MOST_PROFILE
    return ImageMetadata(profile if sound else None, orientation if known else 1, exif)


def can_hold_metadata(suffix: str) -> bool:
    """Return whether files of this suffix can hold a profile, an orientation and EXIF."""
    return suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def profile_fits(profile: bytes, channels: int) -> bool:
    """Return whether an ICC profile is for pixels of so many channels: 1 for gray, 3 for RGB."""
    return profile[16:20] == {1: b"GRAY", 3: b"RGB "}[channels]


def with_metadata(data: bytes, metadata: ImageMetadata) -> bytes:
    """Return the content of a PNG or JPEG file that has none of it, with profile, orientation and EXIF put in.

    Raises:
        DataError: it is a file of another format.
    """
    if not metadata:
        return data
    exif = metadata.exif.serialized(metadata.orientation) if metadata.exif or metadata.orientation != 1 else b""
    if data.startswith(PNG):
        place = len(PNG) + 25  # after the header chunk
        parts = _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(metadata.profile)) if metadata.profile else b""
        parts += _png_chunk(b"eXIf", exif) if exif else b""
        return data[:place] + parts + data[place:]
    if data.startswith(JPEG):
        place = len(JPEG)
        if data[place:place + 2] == b"\xff\xe0":  # the JFIF segment comes first
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        if len(exif) > _JPEG_PART:  # a segment holds no more
            exif = Exif().serialized(metadata.orientation) if metadata.orientation != 1 else b""
        parts = _segment(0xE1, b"Exif\0\0" + exif) if exif else b""
        profile = metadata.profile or b""
        count = -(-len(profile) // _JPEG_PART)
        for number in range(count):
            piece = profile[number * _JPEG_PART:(number + 1) * _JPEG_PART]
            parts += _segment(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, count]) + piece)
        return data[:place] + parts + data[place:]
    raise DataError("a profile and an orientation can be put into PNG and JPEG files only")


def encode_tiff(image: np.ndarray, metadata: ImageMetadata) -> bytes:
    """Return a TIFF file of (H, W, 3) or (H, W) integers with profile, orientation and EXIF."""
    import tifffile  # takes a tenth of a second, and most files are PNG
    file = io.BytesIO()
    tags, parts = dict(metadata.exif.image), {EXIF_IFD: metadata.exif.exif, GPS_IFD: metadata.exif.gps}
    if metadata.orientation != 1:
        tags[ORIENTATION] = Entry(SHORT, 1, struct.pack("<H", metadata.orientation))
    # Where the further directories lie is known when the file is written.
    tags |= {tag: Entry(LONG, 1, bytes(4)) for tag, entries in parts.items() if entries}
    names = {EXIF_IFD: "ExifTag", GPS_IFD: "GPSTag"}  # which the writer takes by name alone
    more = [(names.get(tag, tag), entry.kind, entry.count, entry.data, True) for tag, entry in tags.items()]
    tifffile.imwrite(file, image, photometric="rgb" if image.ndim == 3 else "minisblack", compression="deflate",
                     predictor=True, metadata=None, iccprofile=metadata.profile, extratags=more, software=False,
                     byteorder="<")
    data = bytearray(file.getvalue())
    first, = struct.unpack_from("<I", data, 4)
    count, = struct.unpack_from("<H", data, first)
    for place in range(first + 2, first + 2 + 12 * count, 12):
        entries = parts.get(struct.unpack_from("<H", data, place)[0])
        if entries:
            data += b"\0" * (len(data) % 2)
            struct.pack_into("<I", data, place + 8, len(data))
            data += directory_bytes(entries, len(data))
    return bytes(data)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
