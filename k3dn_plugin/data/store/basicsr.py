"""BasicSR's LMDB layout, read like a store of ours, and written from one.

BasicSR keeps one LMDB a kind of image: values are PNG files, keys their names without suffix, and
`meta_info.txt` beside them lists `name.png (rows,columns,channels) compression`. So a dual-pixel set is a
folder of such databases, one a view: `left.lmdb`, `right.lmdb`, `center.lmdb`, `sharp.lmdb` (other usual
names are understood, see `ALIASES`). BasicSR's own reader gives 8 bits; this one keeps 16.
"""
import functools
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np

from k3dn_plugin.data.images import decode_image, encode_image
from k3dn_plugin.data.store.checks import wrong_name
from k3dn_plugin.data.store.manifest import DEFAULT_FACTS, VIEWS, FrameRecord, Manifest, SceneRecord
from k3dn_plugin.data.store.reader import LmdbStore, damage_named, partial_path, shared_environment
from k3dn_plugin.data.store.writer import storage_errors
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import read_file
from k3dn_plugin.registry import nearest

META_FILE = "meta_info.txt"
_MOST_META = 2**28  # bytes
ALIASES = {
    "left": ("left", "l", "inputl", "lq_left", "lq_l"),
    "right": ("right", "r", "inputr", "lq_right", "lq_r"),
    "center": ("center", "c", "inputc", "lq", "lq_c", "input", "blur", "combined"),
    "sharp": ("sharp", "gt", "target", "all_in_focus"),
}

_META_LINE = re.compile(r"^(?P<key>.+)\.\w+ \((?P<shape>[0-9]{1,6},[0-9]{1,6}(,[0-9]{1,2})?)\) [0-9]{1,3}$")
_PNG_HEADER = 25


class BasicSRStore(LmdbStore):
    """BasicSR's databases as one store: a scene is a key that all views have.

    Args:
        path: a folder of databases (`left.lmdb`, ...), or one database, whose folder name says the view.

    Raises:
        DataError: no database's name says which view it holds, views have different keys, a meta file
            cannot be understood or its database misses keys.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._folders = _view_folders(self.path)
        self._environments = {view: shared_environment(f) for view, f in self._folders.items()}
        shapes = {view: _read_meta(folder / META_FILE) for view, folder in self._folders.items()}
        first = next(iter(shapes))
        for view, keys in shapes.items():
            if keys.keys() != shapes[first].keys():
                odd = sorted(keys.keys() ^ shapes[first].keys())[0]
                lacking = view if odd in shapes[first] else first
                raise DataError(f"{self.path}: the key {odd!r} is not in {self._folders[lacking]}: every "
                                "view must have the same keys")
        scenes = {}
        for key in sorted(shapes[first]):
            frames = {}
            for view, keys in shapes.items():
                folder = self._folders[view]
                with damage_named(folder), self._environments[view].begin() as transaction:
                    header = bytes(self._value(transaction, key, view)[:_PNG_HEADER])
                # A PNG's bit depth stands in the last byte; other formats that BasicSR uses have 8 bits.
                deep = header.startswith(b"\x89PNG") and len(header) == _PNG_HEADER and header[-1] == 16
                frames[view] = FrameRecord(keys[key], "uint16" if deep else "uint8", sha256="")
            scenes[key] = SceneRecord(key, frames)
        depths = {frame.dtype for scene in scenes.values() for frame in scene.views.values()}
        facts = {**DEFAULT_FACTS, "bit_depth": 16 if depths == {"uint16"} else 8}
        self.manifest = Manifest(self.path.name, facts, scenes, complete=True)

    @functools.cached_property
    def hash(self) -> str:
        """Return a fingerprint of the content.

        Of each file its length and end: a PNG ends with checksums of all its pixels, so the gigabytes before
        them need not be read.
        """
        digest = hashlib.sha256()
        for view, environment in sorted(self._environments.items()):
            with environment.begin() as transaction:
                for name in self.names:
                    value = self._value(transaction, name, view)
                    digest.update(f"{view}/{name} {len(value)}".encode())
                    digest.update(value[-64:])
        return digest.hexdigest()

    def read(self, name: str, view: str, rows: slice | None = None, columns: slice | None = None) -> np.ndarray:
        """Read as `LmdbStore.read`, though the whole frame has to be decoded for any crop."""
        record = self.scene(name).views.get(view)
        if record is None:
            raise DataError(f"{self.path}: scene {name!r} has no view {view!r}, only "
                            f"{', '.join(self.scene(name).views)}")
        with damage_named(self._folders[view]), self._environments[view].begin() as transaction:
            frame = decode_image(bytes(self._value(transaction, name, view)),
                                 f"{self._folders[view]}: {name}")
        if frame.shape != record.shape:
            raise DataError(f"{self._folders[view]}: {name!r} is {frame.shape}, {META_FILE} says "
                            f"{record.shape}; one of them belongs to other data")
        return frame[rows or slice(None), columns or slice(None)].copy()

    def damaged_frames(self) -> Iterator[tuple[str, str]]:
        """Yield `(scene, view)` of every frame that cannot be decoded as its meta file says."""
        for name in self.names:
            for view in self._folders:
                try:
                    self.read(name, view)
                except DataError:
                    yield name, view

    def _value(self, transaction: lmdb.Transaction, key: str, view: str) -> bytes | memoryview:
        value = transaction.get(key.encode())
        if value is None:
            with transaction.cursor() as cursor:
                there = [bytes(k).decode(errors="replace") for k in cursor.iternext(values=False)]
            raise DataError(f"{self._folders[view]}: no key {key!r}, though {META_FILE} lists it. "
                            f"{nearest(key, there)}")
        return value


def is_basicsr(path: Path) -> bool:
    """Return whether `path` is a BasicSR database or a folder of them."""
    return (path / META_FILE).is_file() or any(path.glob(f"*/{META_FILE}"))


def _view_folders(path: Path) -> dict[str, Path]:
    single = (path / META_FILE).is_file()
    folders = [path] if single else sorted(file.parent for file in path.glob(f"*/{META_FILE}"))
    found = {}
    for folder in folders:
        name = folder.name.lower().removesuffix(".lmdb").removesuffix("_crops")
        view = next((view for view, names in ALIASES.items() if name in names), None)
        if view is None:
            continue
        if view in found:
            raise DataError(f"{path}: both {found[view].name} and {folder.name} would be the {view} view; "
                            "move one away")
        if not (folder / "data.mdb").is_file():
            raise DataError(f"{folder}: {META_FILE} is there, data.mdb is missing; copy the database again")
        found[view] = folder
    if not found:
        raise DataError(f"{path}: no database's name says which view it holds. Name them "
                        + ", ".join(f"{view}.lmdb" for view in VIEWS))
    return found


def _read_meta(path: Path) -> dict[str, tuple[int, ...]]:
    """Return `{key: shape}` of a meta file."""
    shapes = {}
    try:
        text = read_file(path, most=_MOST_META).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8, found other bytes ({error.reason}). Write it again with "
                        "BasicSR's own tool") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _META_LINE.match(line.strip())
        if match is None:
            raise DataError(f"{path}, line {number}: expected `name.png (rows,columns,channels) "
                            f"compression`, found {line!r}")
        shape = tuple(int(n) for n in match["shape"].split(","))
        shape = shape if len(shape) == 3 else (*shape, 1)
        wrong = wrong_name(match["key"])
        if wrong or min(shape) < 1 or shape[2] not in (1, 3, 4):
            raise DataError(f"{path}, line {number}: {line[:100]!r} cannot be an image: "
                            + (wrong or "expected at least one pixel of 1 or 3 channels"))
        shapes[match["key"]] = shape[:2] + (min(shape[2], 3),)  # alpha is dropped
    if not shapes:
        raise DataError(f"{path}: it lists no image")
    return shapes


def export_basicsr(store: LmdbStore, folder: str | Path, *, views: tuple[str, ...] | None = None,
                   compression: int = 1) -> list[Path]:
    """Write a store as BasicSR databases `<folder>/<view>.lmdb` and return their paths.

    Args:
        store: uint8 or uint16 frames; PNG keeps either. Maps are left out.
        views: which to write; all that every scene has if None.
        compression: of the PNG files, 0 to 9.

    Raises:
        DataError: a view is missing or cannot be a PNG, or a database is there already.
        StorageError: the disk is full.
    """
    if views is None:
        views = tuple(v for v in VIEWS if all(store.has(name, v) for name in store.names))
    keys = {name: name.replace(".", "_") for name in store.names}  # BasicSR cuts keys at the first dot
    if len(set(keys.values())) < len(keys):
        raise DataError(f"{store.path}: two scene names differ by a dot only, which BasicSR's keys cannot "
                        "hold")
    return [_export_view(store, keys, view, Path(folder) / f"{view}.lmdb", compression) for view in views]


def _export_view(store: LmdbStore, keys: dict[str, str], view: str, path: Path, compression: int) -> Path:
    if path.exists():
        raise DataError(f"{path} exists already; delete it to export anew, or choose another folder")
    partial = partial_path(path)
    with storage_errors(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        # PNG values are never much larger than the raw frames.
        size = sum(s.views[view].nbytes for s in store.manifest.scenes.values() if view in s.views)
        environment = lmdb.open(str(partial), map_size=2 * size + 2**26)
        try:
            lines = []
            for name, key in keys.items():
                frame = store.read(name, view)
                png = encode_image(frame, ".png", f"{store.path}: {name}/{view}",
                                   (_PNG_COMPRESSION, compression))
                with environment.begin(write=True) as transaction:
                    transaction.put(key.encode(), png)
                lines.append(f"{key}.png ({','.join(map(str, np.shape(frame)))}) {compression}\n")
        finally:
            environment.close()
        (partial / META_FILE).write_text("".join(lines), encoding="utf-8")
        partial.rename(path)
    return path


_PNG_COMPRESSION = 16  # cv2.IMWRITE_PNG_COMPRESSION, without importing OpenCV for it
