"""Which reader takes a file, and the one way in: `read_views`."""
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from k3dn_plugin.data.images import IMAGE_SUFFIXES
from k3dn_plugin.data.listing import list_files, stem, view_ending
from k3dn_plugin.data.raw.base import ViewReader, Views, ViewSettings, first_bytes, load_readers
from k3dn_plugin.errors import DataError

# What `restore` and others take for a raw file by its name; each holds both views.
RAW_SUFFIXES = (".cr2", ".cr3", ".dng")

_FOREIGN = ((b"\xff\xd8\xff", "a JPEG picture"), (b"\x89PNG", "a PNG picture"), (b"II*\0", "a TIFF or a raw file"),
            (b"MM\0*", "a TIFF or a raw file"), (b"FUJIFILM", "a Fujifilm raw file"), (b"P5", "a PGM picture"),
            (b"P2", "a PGM picture in plain text"), (b"IIU\0", "a Panasonic raw file"), (b"%PDF", "a PDF file"),
            (b"PK\3\4", "a ZIP archive"))

_OWN_FILES = ". Views in files of their own are restored by `k3dn restore --left L.png --right R.png`"


def read_views(path: str | Path, settings: ViewSettings | None = None) -> Views:
    """Read left, right and center view of a camera file.

    Args:
        path: a raw file (CR2, CR3, DNG), one of the files of a pair or of a quad-pixel set, or the latter's folder.
        settings: light, scale, exchange of the sides, ...; sRGB at full size by default.

    Returns:
        The views, 16 bits. They keep the sensor's orientation, because the disparity lies along its rows;
        `metadata["flip"]` says how the camera was held.

    Raises:
        DataError: no such file, of no known kind, damaged, or without a second view.
        DependencyError: rawpy is not installed (`pip install 'k3dn_plugin[raw]'`).
    """
    reader, source = find_reader(Path(path))
    return reader.read(source, settings or ViewSettings())


class FoundSources(NamedTuple):
    """Reader and path of each shot, an error for each file out of which none comes, and what else is to be said."""

    shots: list[tuple[ViewReader, Path]]
    faults: list[DataError]
    notes: list[str]


def find_reader(path: Path) -> tuple[ViewReader, Path]:
    """Return the reader of a file or folder, and the path that stands for its shot.

    Raises:
        DataError: nothing is there, or no reader takes it; the message says what it is.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    found = _taken(path)
    if found is None:
        known = "; ".join(reader.title for reader in load_readers().values())
        raise DataError(f"{path}: {_what_it_is(path)}, out of which no two views can be taken. Expected one of: {known}"
                        f"{_OWN_FILES if _is_picture(path) else ''}")
    return found


def find_sources(paths: Iterable[str | Path]) -> FoundSources:
    """Return every shot that files and folders hold, each once, in order.

    A folder stands for all shots directly in it. What cannot be taken does not stop the others.

    Raises:
        DataError: no path gives a shot; the message says why of each.
    """
    shots: dict[Path, tuple[ViewReader, Path]] = {}
    faults: dict[str, DataError] = {}   # by their words: all files of a set that is not whole have the same
    notes: list[str] = []
    for path in map(Path, paths):
        files = [path]
        try:
            if path.is_dir():
                files, said = _camera_files(path)
                notes += said
        except DataError as error:
            files = []
            faults.setdefault(str(error), error)
        for file in files:
            try:
                reader, source = find_reader(file)
                shots.setdefault(source.resolve(), (reader, source))
            except DataError as error:
                faults.setdefault(str(error), error)
    if not shots:
        found = list(faults.values())
        raise found[0] if len(found) == 1 else DataError("\n".join(
            ["no shot with two views was found:", *(f"  {fault}" for fault in found)]))
    return FoundSources(list(shots.values()), list(faults.values()), notes)


def is_camera_file(path: str | Path) -> bool:
    """Return whether a path is by its name a raw file that holds both views."""
    return Path(path).suffix.lower() in RAW_SUFFIXES


def _taken(path: Path) -> tuple[ViewReader, Path] | None:
    for reader in load_readers().values():
        source = reader.source(path)
        if source is not None:
            return reader, source
    return None


def _camera_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return what of a folder is, or should be, of a shot, and a note of views in files of their own.

    Ordinary pictures are left alone: they lie beside raw files for reasons of their own.

    Raises:
        DataError: there is none.
    """
    suffixes = sorted({suffix for reader in load_readers().values() for suffix in reader.suffixes})
    listed = list_files(folder, suffixes)
    pictures = {file for file in listed if _is_picture(file) and not _is_of_a_shot(file)}
    views = [file for file in listed if file in pictures and view_ending(stem(file))[1] in ("left", "right")]
    found = [*([folder] if _is_of_a_shot(folder) else []), *(file for file in listed if file not in pictures)]
    if not found:
        names = sorted(path.name for path in folder.iterdir())
        raise DataError(f"{folder}: expected camera files in this folder ({', '.join(suffixes)}); found "
                        f"{', '.join(names[:8]) or 'nothing'}{_OWN_FILES if views else ''}")
    return found, [f"{folder}: {', '.join(file.name for file in views[:4])}{', ...' if len(views) > 4 else ''} "
                   f"left alone{_OWN_FILES}"] if views else []


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_of_a_shot(path: Path) -> bool:
    try:
        return _taken(path) is not None
    except DataError:   # of a shot that is not whole
        return True


def _what_it_is(path: Path) -> str:
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir())
        return "a folder with " + (", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing")
    head = first_bytes(path)
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        return f"a file of the kind {head[8:12].decode('latin-1').strip()!r}"
    return next((what for begin, what in _FOREIGN if head.startswith(begin)), "a file of a kind that is not known")
