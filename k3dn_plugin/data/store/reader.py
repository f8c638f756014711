"""Reading a store: whole raw frames in one LMDB environment, a crop being a slice of the memory map.

    store = LmdbStore("datasets/dpdd/train.lmdb")
    store.names, store.manifest.facts["bit_depth"]
    left = store.read("1P0A0890", "left", rows=slice(0, 256), columns=slice(64, 320))   # (256, 256, 3) uint16

Nothing is decoded and only the crop is copied out of the map. Stores pickle, and survive a fork: each
process opens the database when it first reads.
"""
import contextlib
import hashlib
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np

from k3dn_plugin.data.store.manifest import HASH_KEY, MANIFEST_KEY, Manifest, SceneRecord, frame_key
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import user_path
from k3dn_plugin.registry import nearest


class LmdbStore:
    """A finished store, opened for reading.

    Args:
        path: the folder, as written by `StoreWriter`.

    Raises:
        DataError: there is no such folder, it was not finished, it is not a store of ours, its format is
            of another version, or the file is shorter than its content.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = user_path(path)
        self._sound: set[bytes] = set()
        check_folder(self.path)
        self._environment = shared_environment(self.path)
        with damage_named(self.path), self._environment.begin() as transaction:
            text, written = transaction.get(MANIFEST_KEY), transaction.get(HASH_KEY)
            if text is None:
                raise DataError(f"{self.path}: an LMDB database without a manifest, so not a store of ours. "
                                "If it is BasicSR's layout, its meta_info.txt is missing; otherwise "
                                + ways_on(self.path))
            self.manifest = Manifest.from_json(text, self.path)
            # Of unfinished stores and of those that earlier versions made there is no hash.
            if self.manifest.complete and written is not None and hashlib.sha256(text).digest() != bytes(written):
                raise DataError(f"{self.path}: its manifest is damaged: it is not what was written. Copy the folder "
                                f"again, or delete it and {ways_on(self.path)}")
        if not self.manifest.complete:
            raise DataError(unfinished(self.path))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the scenes, sorted."""
        return tuple(self.manifest.scenes)

    @property
    def hash(self) -> str:
        """Return a fingerprint of the content, the same wherever the store lies."""
        return self.manifest.hash()

    def __len__(self) -> int:
        return len(self.manifest.scenes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} scenes)"

    def scene(self, name: str) -> SceneRecord:
        """Return the record of a scene.

        Raises:
            DataError: there is no such scene; the message lists the nearest.
        """
        try:
            return self.manifest.scenes[name]
        except KeyError:
            raise DataError(f"{self.path}: no scene {name!r}. {nearest(name, self.names)} "
                            f"It holds {len(self)} scenes") from None

    def has(self, name: str, view: str) -> bool:
        """Return whether the scene has this view ("left", "sharp", "disparity", ...)."""
        return view in self.scene(name).views

    def read(self, name: str, view: str, rows: slice | None = None,
             columns: slice | None = None) -> np.ndarray:
        """Return a frame or a crop of it, as stored: (rows, columns, channels), or (rows, columns) for maps.

        The first time that a frame is read, the whole of it is compared with its hash in the manifest.

        Raises:
            DataError: no such scene or view, or the database lost or damaged the frame.
        """
        record = self.scene(name).views.get(view)
        if record is None:
            raise DataError(f"{self.path}: scene {name!r} has no view {view!r}, only "
                            f"{', '.join(self.scene(name).views)}")
        with damage_named(self.path), self._environment.begin() as transaction:
            key = record.stored_as.encode() if record.stored_as else frame_key(name, view)
            value = transaction.get(key)
            if value is None or len(value) != record.nbytes:
                found = "is missing" if value is None else f"has {len(value)} bytes, not {record.nbytes}"
                raise DataError(f"{self.path}: the key {key.decode()!r} {found}, though "
                                "the manifest lists it: the database is damaged. Delete the folder and "
                                + ways_on(self.path))
            if key not in self._sound:
                if hashlib.sha256(value).hexdigest() != record.sha256:
                    raise DataError(f"{self.path}: the {view} frame of scene {name!r} is damaged: its content is not "
                                    f"what was written. Copy the folder again, or delete it and {ways_on(self.path)}")
                self._sound.add(key)
            frame = np.frombuffer(value, record.disk_dtype).reshape(record.shape)
            # The copy is what may outlive the transaction; the slice before it costs nothing.
            crop = frame[rows or slice(None), columns or slice(None)]
            return crop.astype(record.dtype, order="C", copy=True)

    def damaged_frames(self) -> Iterator[tuple[str, str]]:
        """Yield `(scene, view)` of every frame whose content is not what was written; reads everything."""
        self._sound.clear()
        for name, scene in self.manifest.scenes.items():
            for view in scene.views:
                try:
                    self.read(name, view, slice(0, 1))
                except DataError:
                    yield name, view

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])


def frame_hash(frame: np.ndarray) -> str:
    """Return the SHA-256 of a frame's bytes as they are stored."""
    disk = np.ascontiguousarray(frame, dtype=frame.dtype.newbyteorder("<"))
    return hashlib.sha256(disk.data).hexdigest()


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what LMDB finds wrong with a database into a `DataError` that says what to do."""
    try:
        yield
    except lmdb.Error as error:
        raise DataError(f"{path}: the database is damaged ({error}). Copy the folder again, or delete it and "
                        f"{ways_on(path)}") from None


def partial_path(path: str | os.PathLike[str]) -> Path:
    """Return where a store is built before it gets its name."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


def ways_on(path: Path) -> str:
    """Return the two ways to come to data where the store `path` cannot be used."""
    return (f"prepare it: k3dn prepare NAME --source DIR --out {path.parent} (--help lists the NAMEs "
            "of layouts); or start without it: make demo")


def unfinished(path: Path) -> str:
    """Return the message about a store whose building was interrupted."""
    return (f"{path}: this store was not finished; its building was interrupted. Run the same command "
            "again (k3dn prepare, k3dn simulate or make demo): it goes on where it stopped")


def check_folder(path: Path) -> None:
    """Raise `DataError` unless `path` is a folder that may hold a finished LMDB database."""
    if path.name.endswith(".partial"):
        raise DataError(unfinished(path))
    if not path.exists():
        if partial_path(path).exists():
            raise DataError(unfinished(partial_path(path)))
        raise DataError(f"there is no folder {path}. Either {ways_on(path)}")
    if not (path / "data.mdb").is_file():
        raise DataError(f"{path}: expected an LMDB folder with a file data.mdb, found "
                        f"{'a file' if path.is_file() else 'a folder without it'}. Give the path of the "
                        f".lmdb folder itself, or {ways_on(path)}")


class _Environment:
    """An LMDB environment opened once a process and shared by the stores that read it.

    LMDB allows one opening a process and forbids carrying it over a fork, hence the process id. Stores never
    change, so there is no lock file: read-only media and many readers are fine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._open()

    def begin(self) -> lmdb.Transaction:
        """Return a read transaction whose values are buffers into the memory map, valid until it ends."""
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    # Unmaps this process's inherited copy only; the parent's stays as it is.
                    self._handle.close()
                    self._open()
        return self._handle.begin(buffers=True)

    def close(self) -> None:
        """Unmap; the next `begin` fails."""
        self._handle.close()

    def __del__(self) -> None:
        if hasattr(self, "_handle") and self._process == os.getpid():
            self._handle.close()

    def _open(self) -> None:
        try:
            self._handle = lmdb.open(str(self.path), readonly=True, lock=False, create=False)
        except lmdb.Error as error:
            if "Permission denied" in str(error):
                raise DataError(f"{self.path}/data.mdb: cannot be read (permission denied). Change its permissions, or "
                                "give a store that you may read") from None
            raise DataError(f"{self.path}: not readable as an LMDB database ({error}). If it was copied, "
                            f"the copy may be incomplete; otherwise {ways_on(self.path)}") from None
        self._process = os.getpid()
        unreadable = unreadable_part(self.path, self._handle)
        if unreadable:
            self._handle.close()
            # Touching the missing part of the map would kill the process (SIGBUS).
            raise DataError(f"{self.path}: {unreadable}. Copy it again, or {ways_on(self.path)}")


def unreadable_part(path: Path, handle: lmdb.Environment | None = None) -> str:
    """Return what is missing of the database in a folder, or the empty string.

    Args:
        path: the folder.
        handle: of the database, where it is open.

    Raises:
        lmdb.Error: it is no LMDB database at all.
    """
    environment = handle or lmdb.open(str(path), readonly=True, lock=False, create=False)
    try:
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    finally:
        if handle is None:
            environment.close()
    found = (path / "data.mdb").stat().st_size
    return "" if found >= needed else (f"data.mdb has {found:,} bytes, its content needs {needed:,}: the file was cut "
                                       "off, by a full disk or an interrupted copy")


_environments: weakref.WeakValueDictionary[tuple[int, int], _Environment] = weakref.WeakValueDictionary()
_environments_lock = threading.Lock()


def shared_environment(path: str | os.PathLike[str]) -> _Environment:
    """Return the process's environment for the database now at `path`."""
    status = os.stat(Path(path) / "data.mdb")
    key = (status.st_dev, status.st_ino)
    with _environments_lock:
        environment = _environments.get(key)
        if environment is None:
            environment = _environments[key] = _Environment(Path(path))
        return environment
