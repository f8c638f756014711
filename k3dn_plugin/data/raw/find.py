"""Which reader takes a file, and the one way in: `read_views`."""
from collections.abc import Iterable
from pathlib import Path

from k3dn_plugin.data.raw.base import ViewReader, Views, ViewSettings, first_bytes, load_readers
from k3dn_plugin.errors import DataError

# What `restore` and others take for a raw file by its name; each holds both views.
RAW_SUFFIXES = (".cr2", ".cr3", ".dng")

_FOREIGN = ((b"\xff\xd8\xff", "a JPEG picture"), (b"\x89PNG", "a PNG picture"), (b"II*\0", "a TIFF or a raw file"),
            (b"MM\0*", "a TIFF or a raw file"), (b"FUJIFILM", "a Fujifilm raw file"), (b"P5", "a PGM picture"),
            (b"IIU\0", "a Panasonic raw file"), (b"%PDF", "a PDF file"), (b"PK\3\4", "a ZIP archive"))


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


def find_reader(path: Path) -> tuple[ViewReader, Path]:
    """Return the reader of a file or folder, and the path that stands for its shot.

    Raises:
        DataError: nothing is there, or no reader takes it; the message says what it is.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    readers = load_readers()
    for reader in readers.values():
        source = reader.source(path)
        if source is not None:
            return reader, source
    known = "; ".join(f"{reader.title}" for reader in readers.values())
    raise DataError(f"{path}: {_what_it_is(path)}, out of which no two views can be taken. Expected one of: {known}")


def find_sources(paths: Iterable[str | Path]) -> list[tuple[ViewReader, Path]]:
    """Return reader and path of every shot that files and folders hold, each once, in order.

    A folder stands for all shots directly in it, unless it is one shot itself (a quad-pixel set).

    Raises:
        DataError: a path is not there or of no known kind; a folder holds no camera file.
    """
    found: dict[Path, tuple[ViewReader, Path]] = {}
    for path in map(Path, paths):
        for reader, source in _shots(path):
            found.setdefault(source.resolve(), (reader, source))
    return list(found.values())


def is_camera_file(path: str | Path) -> bool:
    """Return whether a path is by its name a raw file that holds both views."""
    return Path(path).suffix.lower() in RAW_SUFFIXES


def _shots(path: Path) -> list[tuple[ViewReader, Path]]:
    if not path.is_dir():
        return [find_reader(path)]
    readers = load_readers().values()
    whole = [(reader, source) for reader in readers if (source := reader.source(path)) is not None]
    if whole:
        return whole[:1]
    suffixes = {suffix for reader in readers for suffix in reader.suffixes}
    inside = [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix.lower() in suffixes
              and not file.name.startswith(".")]
    shots = [(reader, source) for file in inside for reader in readers
             if file.suffix.lower() in reader.suffixes and (source := reader.source(file)) is not None]
    if not shots:
        raise DataError(f"{path}: expected camera files in this folder ({', '.join(sorted(suffixes))}); found "
                        f"{', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'nothing'}")
    return shots


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
