"""TIFF files, whose pixels mean what their tags say: the tags are read before the pixels are believed.

OpenCV decodes the usual kinds. Of others it gives wrong numbers without an error (planes of 16 bits, white as 0, gray
with alpha) or turns the picture as its orientation tag says, which would exchange left and right.
"""
import io
import logging
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from k3dn_plugin.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffPage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
INTERLEAVED, NOT_COMPRESSED, DEFLATED, ORIENTATION, DNG_VERSION = 1, 1, (8, 32946), 274, 50706
AGAIN = "copy or download it again"


def decode_tiff(data: bytes, name: object, *, most_bytes: int) -> np.ndarray:
    """Decode the first page of a TIFF file as its rows are stored, without turning it.

    Args:
        data: the file's content.
        name: of the file, for messages.
        most_bytes: that the decoded picture may have.

    Returns:
        (H, W, 3) RGB or (H, W, 1), uint8 or uint16; alpha is dropped.

    Raises:
        DataError: the file is cut off or damaged, a raw file, or of a kind that is not known to be decoded rightly.
    """
    import tifffile  # takes a tenth of a second, and most files are PNG
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would log becomes an error here
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]   # tifffile: or a frame, which only later ones can be
            if page.is_reduced or DNG_VERSION in page.tags or data[8:10] == b"CR":
                raise raw_file(name)
            _check_kind(page, name, most_bytes)
            _check_whole(page, data, name)
            return _decode(page, data, file.byteorder, name)
    except DataError:
        raise
    except (MemoryError, RecursionError):
        raise DataError(f"{name}: the TIFF file claims more than memory holds; {AGAIN}") from None
    except Exception as error:  # tifffile raises whatever its parser runs into
        raise DataError(f"{name}: not a TIFF file that can be read, or a damaged one ({_short(error)}); "
                        f"{AGAIN}") from None


def raw_file(name: object) -> DataError:
    """Return the error for a camera's raw file, or another of a TIFF's structure that begins with a reduced picture."""
    return DataError(f"{name}: expected a picture, found a raw file, or another whose first picture is a thumbnail. A "
                     "dual-pixel raw file holds both views: give it alone, without --left and --right")


def _check_kind(page: "TiffPage", name: object, most_bytes: int) -> None:
    bits, kind = page.bitspersample, page.sampleformat
    if kind != 1 or bits not in (8, 16):
        found = {1: f"{bits} bits", 3: f"{bits}-bit floats"}.get(int(kind), f"sample format {kind} of {bits} bits")
        raise DataError(f"{name}: expected 8 or 16 bits a channel, the file has {found}")
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR) or page.imagedepth != 1:
        raise DataError(f"{name}: expected a TIFF file of gray or RGB pixels, found {_name_of(page.photometric)}; save "
                        "it as RGB")
    if min(page.imagewidth, page.imagelength, page.samplesperpixel) < 1:
        raise DataError(f"{name}: the TIFF file is damaged: it has no pixels; {AGAIN}")
    size = page.imagewidth * page.imagelength * page.samplesperpixel * bits // 8
    if size > most_bytes:
        raise DataError(f"{name}: the TIFF file claims {page.imagewidth} x {page.imagelength} pixels, {size:,} bytes; "
                        f"at most {most_bytes:,} are read. It is damaged, or has to be cut into pieces")


def _name_of(tag: Any) -> Any:
    """Return the name of a tag's value, or the number where it has none."""
    return getattr(tag, "name", tag)


def _check_whole(page: "TiffPage", data: bytes, name: object) -> None:
    """Raise `DataError` where strips or tiles are missing or lie beyond the file's end."""
    cut = DataError(f"{name}: the TIFF file is cut off or damaged: parts of its pixels are missing; {AGAIN}")
    planes = 1 if page.planarconfig == INTERLEAVED else page.samplesperpixel
    if page.is_tiled:
        expected = math.ceil(page.imagelength / page.tilelength) * math.ceil(page.imagewidth / page.tilewidth)
        segment = page.tilelength * page.tilewidth
    else:
        rows = min(page.rowsperstrip or page.imagelength, page.imagelength)
        expected, segment = math.ceil(page.imagelength / rows), rows * page.imagewidth
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < expected * planes or len(counts) < expected * planes:
        raise cut
    if any(count < 1 or offset < 8 or offset + count > len(data)
           for offset, count in zip(offsets, counts, strict=False)):
        raise cut
    if page.compression == NOT_COMPRESSED:
        size = page.bitspersample // 8 * page.samplesperpixel
        needed = page.imagelength * page.imagewidth * size
        if page.is_tiled:
            needed = expected * segment * size
        if sum(counts[:expected * planes]) < needed and page.photometric != YCBCR:
            raise cut


def _decode(page: "TiffPage", data: bytes, byteorder: str, name: object) -> np.ndarray:
    import cv2  # heavy
    inverted = page.photometric == WHITE_IS_ZERO
    interleaved = page.planarconfig == INTERLEAVED or page.samplesperpixel == 1
    # OpenCV knows more compressions; what is not compressed, tifffile alone reads in tiles that the edge cuts.
    known = (1, 3, 4) if page.bitspersample == 16 else (1, 3) if not inverted else ()
    if interleaved and page.samplesperpixel in known and (
            page.photometric in (PALETTE, YCBCR) or page.compression != NOT_COMPRESSED):
        image = cv2.imdecode(np.frombuffer(_upright(page, data, byteorder), np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise DataError(f"{name}: not a TIFF file that can be read, or a damaged one; {AGAIN}")
        image = image[..., None] if image.ndim == 2 else image[..., 2::-1] if image.shape[2] >= 3 else image[..., :1]
        if image.shape[:2] != (page.imagelength, page.imagewidth) or 8 * image.itemsize != page.bitspersample:
            raise DataError(f"{name}: the TIFF file's pixels are not what its tags say; save it as PNG")
        return np.ascontiguousarray(65535 - image if inverted else image)
    if page.photometric in (PALETTE, YCBCR):
        raise DataError(f"{name}: a TIFF file of this kind (planes of {_name_of(page.photometric)}) cannot be read; "
                        "save it as RGB")
    if page.compression in DEFLATED:
        _check_deflated(page, data, name)
    try:
        image = page.asarray().reshape(-1, page.imagelength, page.imagewidth) if not interleaved else \
            page.asarray().reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    except (ValueError, RuntimeError, ImportError) as error:
        if "requires the" not in str(error):
            raise
        raise DataError(f"{name}: the compression {_name_of(page.compression)} of a TIFF file of this kind cannot "
                        "be read without imagecodecs: pip install imagecodecs, or save it as PNG or without "
                        "compression") from None
    image = image if interleaved else image.transpose(1, 2, 0)
    image = image[..., :3 if page.photometric == RGB and image.shape[2] >= 3 else 1]
    if inverted:
        image = np.iinfo(image.dtype).max - image
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def _check_deflated(page: "TiffPage", data: bytes, name: object) -> None:
    """Raise `DataError` where a strip or tile has other bytes than it should, perhaps gigabytes of them."""
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    samples = page.samplesperpixel if page.planarconfig == INTERLEAVED else 1
    most = min(rows, page.imagelength if not page.is_tiled else rows) * columns * samples * page.bitspersample // 8
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        part = zlib.decompressobj()
        part.decompress(data[offset:offset + count], most + 1)
        if part.unconsumed_tail or not part.eof:
            raise DataError(f"{name}: the TIFF file is cut off or damaged: a strip of it is not whole; {AGAIN}")


def _upright(page: "TiffPage", data: bytes, byteorder: str) -> bytes:
    """Return the file without its orientation, which OpenCV would turn the picture by."""
    tag = page.tags.get(ORIENTATION)
    if tag is None or tag.value == 1 or not tag.valueoffset:
        return data
    changed = bytearray(data)
    struct.pack_into(byteorder + {1: "B", 3: "H", 4: "I"}.get(int(tag.dtype), "H"), changed, tag.valueoffset, 1)
    return bytes(changed)


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
