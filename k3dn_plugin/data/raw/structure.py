"""The structure of camera files, checked before their numbers are believed: TIFF (CR2, DNG) and ISO boxes (CR3).

A decoder gives what it could read of a cut-off file, and makes room for whatever size a file claims. So what a
file says of its parts is compared with its length first. Nothing is decoded here.
"""
import contextlib
import io
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from k3dn_plugin.errors import DataError
from k3dn_plugin.files import open_file

MAKE, MODEL = 271, 272
WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES = 256, 257, 258, 259, 277
STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS = 273, 279, 324, 325
PHOTOMETRIC, SUB_DIRECTORIES, CR2_SLICES, DNG_VERSION = 262, 330, 0xC640, 0xC612
_NEEDED = {MAKE, MODEL, WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS,
           TILE_COUNTS, PHOTOMETRIC, SUB_DIRECTORIES, CR2_SLICES, DNG_VERSION}
CANON_BOX = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
MOST_DIRECTORIES, MOST_VALUES = 64, 1 << 18

# TIFF's field types: struct code and size in bytes.
_TYPES = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 6: ("b", 1), 7: ("s", 1), 8: ("h", 2), 9: ("i", 4)}


@dataclass(frozen=True)
class FileFacts:
    """What the structure of a camera file says.

    Attributes:
        kind: "CR2", "CR3", "DNG" or "TIFF" (any other file of that structure).
        make, model: of the camera; empty where the file does not say.
        frames: (rows, columns, samples) of the raw images, where the structure tells them (not in CR3).
    """

    kind: str
    make: str = ""
    model: str = ""
    frames: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def camera(self) -> str:
        """Make and model, the make not twice."""
        joined = self.model if self.model.startswith(self.make) else f"{self.make} {self.model}"
        return joined.strip() or "unnamed camera"


def read_structure(path: Path) -> FileFacts:
    """Return what kind of file it is and of which camera, after checking that it is whole.

    Raises:
        DataError: no such file, neither TIFF nor ISO boxes, cut off, or it claims more than its length can hold.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(16)
            if head and len(head) < 16:
                raise DataError(f"{path}: the file is cut off after {len(head)} bytes. Copy it from the camera again")
            if head[4:12] == b"ftypcrx ":
                return _read_boxes(file, size, path)
            if head[:4] in (b"II*\0", b"MM\0*"):
                return _read_tiff(file, size, path, b"CR" == head[8:10])
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    raise DataError(f"{path}: {'an empty file' if not head else 'by its beginning no camera raw file'}; expected a "
                    "CR2, CR3 or DNG file. Copy it from the camera again")


def _read_tiff(file: BinaryIO, size: int, path: Path, canon: bool) -> FileFacts:
    directories = tiff_directories(file, size)
    first = directories[0] if directories else {}
    kind = "CR2" if canon else "DNG" if any(DNG_VERSION in each for each in directories) else "TIFF"
    frames = []
    for entries in directories:
        if not _is_raw(entries, canon):
            continue  # previews may be damaged for all that this is about
        offsets = entries.get(STRIP_OFFSETS) or entries.get(TILE_OFFSETS) or ()
        counts = entries.get(STRIP_COUNTS) or entries.get(TILE_COUNTS) or ()
        for offset, count in zip(offsets, counts, strict=False):
            if offset + count > size:
                raise _cut_off(path, size, offset + count)
        shape = _cr2_shape(file, entries, path) if canon else _plain_shape(entries)
        if shape is not None:
            _check_claim(shape, entries, sum(counts), path)
            frames.append(shape)
    return FileFacts(kind, _text(first.get(MAKE)), _text(first.get(MODEL)), frames)


def tiff_directories(file: BinaryIO, size: int) -> list[dict[int, tuple]]:
    """Return the directories of a TIFF file in order, sub-directories after the one that names them.

    Each is `{tag: values}` with the tags that are needed here. What lies outside the file is left out: cameras and
    programs leave pointers to nowhere, and LibRaw has the last word on what can be read.
    """
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    waiting, seen, directories = list(_unpack(file, order + "I", 4, size)), set(), []
    while waiting and len(directories) < MOST_DIRECTORIES:
        place = waiting.pop(0)
        count = _unpack(file, order + "H", place, size)
        if place == 0 or place in seen or not count:
            continue
        seen.add(place)
        entries: dict[int, tuple] = {}
        for at in range(place + 2, place + 2 + 12 * count[0], 12):
            tag, kind, length = _unpack(file, order + "HHI", at, size) or (0, 0, 0)
            if tag in _NEEDED and kind in _TYPES and length <= MOST_VALUES:
                code, width = _TYPES[kind]
                where = (at + 8,) if length * width <= 4 else _unpack(file, order + "I", at + 8, size)
                entries[tag] = _unpack(file, f"{order}{length}{code}", where[0], size) if where else ()
        directories.append(entries)
        following = _unpack(file, order + "I", place + 2 + 12 * count[0], size)
        waiting = [*entries.get(SUB_DIRECTORIES, ()), *waiting, *following]
    return directories


def _is_raw(entries: dict[int, tuple], canon: bool) -> bool:
    return CR2_SLICES in entries if canon else (entries.get(PHOTOMETRIC) or (0,))[0] in (32803, 34892)


def _plain_shape(entries: dict[int, tuple]) -> tuple[int, int, int] | None:
    """(rows, columns, samples) that a directory claims."""
    rows, columns = entries.get(LENGTH), entries.get(WIDTH)
    return (rows[0], columns[0], (entries.get(SAMPLES) or (1,))[0]) if rows and columns else None


def _cr2_shape(file: BinaryIO, entries: dict[int, tuple], path: Path) -> tuple[int, int, int] | None:
    """(rows, columns, 1) of a CR2's raw image: its lossless JPEG says them."""
    if CR2_SLICES not in entries or not entries.get(STRIP_OFFSETS):
        return None
    file.seek(entries[STRIP_OFFSETS][0])
    head = file.read(4096)
    place = 2
    while head[:2] == b"\xff\xd8" and place + 10 <= len(head) and head[place] == 0xFF:
        marker, length = struct.unpack_from(">BH", head, place + 1)
        if marker == 0xC3:
            rows, columns, components = struct.unpack_from(">HHB", head, place + 5)
            return rows, columns * components, 1
        place += 2 + length
    raise DataError(f"{path}: damaged: a raw image in it does not begin as lossless JPEG does. Copy the file from the "
                    "camera again")


def _check_claim(shape: tuple[int, int, int], entries: dict[int, tuple], stored: int, path: Path) -> None:
    """Raise where an image claims more numbers than its bytes can hold."""
    rows, columns, samples = shape
    # One bit a number is the least that any lossless code needs; uncompressed ones need all of theirs.
    bits = (entries.get(BITS) or (1,))[0] if (entries.get(COMPRESSION) or (1,))[0] == 1 else 1
    if 0 in shape or rows * columns * samples * bits > 8 * stored:
        raise DataError(f"{path}: damaged: it claims {rows} x {columns} pixels (rows x columns) and holds {stored:,} "
                        "bytes of them. Copy the file from the camera again")


def _read_boxes(file: BinaryIO, size: int, path: Path) -> FileFacts:
    """A CR3: whole boxes to its end; the camera's name is in the TIFF inside moov/uuid/CMT1."""
    movie = [(start, end) for kind, start, end in _boxes(file, 0, size, path) if kind == b"moov"]
    directories = []
    # The name is for messages only: without it nothing is refused.
    with contextlib.suppress(DataError):
        for kind, start, end in _boxes(file, *movie[0], path) if movie else ():
            file.seek(start)
            if kind == b"uuid" and file.read(16) == CANON_BOX:
                for name, begin, stop in _boxes(file, start + 16, end, path):
                    if name == b"CMT1" and not directories:
                        file.seek(begin)
                        notes = file.read(min(stop - begin, 1 << 20))
                        directories = tiff_directories(io.BytesIO(notes), len(notes))
    make, model = (_text(directories[0].get(tag)) if directories else "" for tag in (MAKE, MODEL))
    return FileFacts("CR3", make, model)


def _boxes(file: BinaryIO, start: int, end: int, path: Path) -> list[tuple[bytes, int, int]]:
    """(kind, start and end of the content) of the boxes between two places."""
    found = []
    while start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if length == 1:
            length = struct.unpack(">Q", file.read(8))[0] if content + 8 <= end else 0
            content += 8
        elif length == 0:  # to the end of the file
            length = end - start
        if length < content - start or len(found) > 4096:
            raise DataError(f"{path}: damaged at byte {start:,} (a box of length {length}). Copy the file from the "
                            "camera again")
        if start + length > end:
            raise _cut_off(path, end, start + length)
        found.append((kind, content, start + length))
        start += length
    return found


def _unpack(file: BinaryIO, code: str, place: int, size: int) -> tuple:
    """The numbers at a place of the file; none where it lies outside."""
    length = struct.calcsize(code)
    if place + length > size:
        return ()
    file.seek(place)
    return struct.unpack(code, file.read(length))


def _text(values: tuple | None) -> str:
    return values[0].split(b"\0")[0].decode("latin-1").strip() if values and isinstance(values[0], bytes) else ""


def _cut_off(path: Path, size: int, needed: int) -> DataError:
    return DataError(f"{path}: the file is cut off or damaged: it has {size:,} bytes, and what it describes reaches to "
                     f"byte {needed:,}. Copy it from the camera again")
