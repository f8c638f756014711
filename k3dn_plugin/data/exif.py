"""What a photograph's file says about how it was taken (camera, lens, time, place): read from one, written to another.

EXIF data are a small TIFF file. What describes the photograph is kept, with its types and values as they are; what
describes the file that it came from (sizes, strips, thumbnail, the maker's private notes with their absolute offsets)
is left out, because it would be wrong in any other file.
"""
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

ORIENTATION, EXIF_IFD, GPS_IFD = 0x112, 0x8769, 0x8825
SHORT, LONG, POINTER = 3, 4, 13
# Of the first directory: description, make, model, software, time, artist, host computer, rating, copyright, and what
# Windows writes (title, comment, author, keywords, subject).
DESCRIPTIVE = frozenset((0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x13C, 0x4746, 0x4749, 0x8298,
                         *range(0x9C9B, 0x9CA0)))
# Of the EXIF directory: maker's notes, width, height, and pointers to further directories.
ABOUT_THE_FILE = frozenset((0x927C, 0xA002, 0xA003, 0xA005))
# Bytes of a value, by type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_WORDS = {5: 4, 10: 4}                          # bytes that are turned together, where those are not the value's
_MOST_ENTRIES, _MOST_BYTES = 1000, 30_000       # of a directory, of a value; a JPEG file holds 64 kB of it all


class Entry(NamedTuple):
    """One entry of a directory: its type, as TIFF numbers it, how many values, and the values, little-endian."""

    kind: int
    count: int
    data: bytes


Directory = dict[int, Entry]


@dataclass(frozen=True)
class Exif:
    """The entries that describe a photograph, by tag.

    Attributes:
        image: of the first directory, without the orientation. exif: of the EXIF directory. gps: of that of the place.
    """

    image: Directory = field(default_factory=dict)
    exif: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.image or self.exif or self.gps)

    def serialized(self, orientation: int = 1) -> bytes:
        """Return the data as PNG and JPEG files hold them; an orientation of 1 is left out where nothing else is."""
        image = dict(self.image)
        if orientation != 1 or image:
            image[ORIENTATION] = Entry(SHORT, 1, struct.pack("<H", orientation))
        parts = {EXIF_IFD: self.exif, GPS_IFD: self.gps}
        for tag in (tag for tag, found in parts.items() if found):
            image[tag] = Entry(LONG, 1, bytes(4))
        data = b"II*\0\x08\0\0\0"
        place = len(data) + len(directory_bytes(image, len(data)))
        for tag in (tag for tag, found in parts.items() if found):
            image[tag] = Entry(LONG, 1, struct.pack("<I", place))
            place += len(directory_bytes(parts[tag], place))
        data += directory_bytes(image, len(data))
        for found in parts.values():
            data += directory_bytes(found, len(data)) if found else b""
        return data


def read_exif(data: bytes) -> Exif:
    """Return what EXIF data, or a TIFF-like file (TIFF, DNG, CR2), say about the photograph; of damaged ones nothing.

    Args:
        data: beginning with `II*` or `MM*`, or with `Exif` before that.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return Exif()
    try:
        first = _directory(data, struct.unpack_from(order + "I", data, 4)[0], order)
        parts = {tag: _directory(data, struct.unpack("<I", first[tag].data)[0], order)
                 if tag in first and first[tag][:2] in ((LONG, 1), (POINTER, 1)) else {} for tag in (EXIF_IFD, GPS_IFD)}
    except struct.error:
        return Exif()
    return Exif({tag: entry for tag, entry in first.items() if tag in DESCRIPTIVE},
                {tag: entry for tag, entry in parts[EXIF_IFD].items() if tag not in ABOUT_THE_FILE}, parts[GPS_IFD])


def _directory(data: bytes, start: int, order: str) -> Directory:
    """Return the entries of the directory at `start`; what does not lie within the data is left out.

    Raises:
        struct.error: the directory itself does not.
    """
    found = {}
    count, = struct.unpack_from(order + "H", data, start)
    for number in range(min(count, _MOST_ENTRIES)):
        place = start + 2 + 12 * number
        tag, kind, length = struct.unpack_from(order + "HHI", data, place)
        size = _SIZES.get(kind, 0) * length
        at = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
        if 0 < size <= _MOST_BYTES and at + size <= len(data):
            values = data[at:at + size]
            found[tag] = Entry(kind, length, values if order == "<" else _turned(values, kind))
    return found


def _turned(values: bytes, kind: int) -> bytes:
    """Return values with the bytes of each number in the opposite order."""
    width = _WORDS.get(kind, _SIZES[kind])
    return b"".join(values[at:at + width][::-1] for at in range(0, len(values), width))


def directory_bytes(entries: Directory, start: int) -> bytes:
    """Return a little-endian directory that lies at `start`, the last of its file, with its values behind it."""
    head, tail = struct.pack("<H", len(entries)), b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag, entry in sorted(entries.items()):
        value = entry.data.ljust(4, b"\0")
        if len(entry.data) > 4:
            value = struct.pack("<I", behind + len(tail))
            tail += entry.data + b"\0" * (len(entry.data) % 2)
        head += struct.pack("<HHI", tag, entry.kind, entry.count) + value
    return head + bytes(4) + tail
