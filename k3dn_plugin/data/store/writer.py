"""Building a store so that a kill, a full disk or a bad file never leaves something that looks finished.

    with StoreWriter("datasets/own/train.lmdb", dataset="own", facts={"bit_depth": 16}) as writer:
        for name in scenes:
            if name not in writer:                       # an interrupted build goes on here
                writer.add(name, {"left": left, "right": right, "sharp": sharp})
        writer.finish()

A scene's frames and its record are one transaction: both are there or neither. The folder is called
`<path>.partial` until `finish` has written the manifest and renamed it.
"""
import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from k3dn_plugin.data.store.checks import check_facts, check_scene, wrong_name
from k3dn_plugin.data.store.manifest import (
    DEFAULT_FACTS,
    DTYPES,
    HASH_KEY,
    MANIFEST_KEY,
    MAPS,
    SCENE_PREFIX,
    VIEWS,
    FrameRecord,
    Manifest,
    SceneRecord,
    frame_key,
)
from k3dn_plugin.data.store.reader import LmdbStore, frame_hash, partial_path, unreadable_part
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import FolderLock, file_hash, storage_error, sync_folder, user_path

_START_SIZE = 2**28
_NEARLY_FULL = 2**26
_SMALLEST_DATABASE = 2 * 4096


class StoreWriter:
    """Builds a store, or goes on with an interrupted one.

    Args:
        path: the folder to make, by habit `*.lmdb`.
        dataset: name of the data set.
        facts: what holds for all scenes (`manifest.DEFAULT_FACTS` lists what the toolbox reads; more may
            be added). JSON values.
        source_root: sources are recorded relative to this folder; by file name alone if None.

    Attributes:
        damaged: scenes of an interrupted build whose frames were no longer what was written; they are taken out, to be
            added anew.

    Raises:
        DataError: `path` exists, the facts are impossible, or `<path>.partial` holds an unfinished store with other
            facts, or a damaged one, or one that another process is building.
        StorageError: nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike[str], *, dataset: str, facts: Mapping | None = None,
                 source_root: str | os.PathLike[str] | None = None) -> None:
        self.path = user_path(path)
        self.partial = partial_path(self.path)
        self.source_root = None if source_root is None else Path(source_root)
        # Through JSON, so that a resumed build compares what was stored with what would be.
        self.manifest = Manifest(dataset, {**DEFAULT_FACTS, **json.loads(json.dumps(dict(facts or {})))})
        try:
            check_facts(self.manifest.facts)
        except ValueError as error:
            raise DataError(f"{self.path}: impossible facts of the data set: {error}") from None
        if os.path.lexists(self.path):
            raise DataError(f"{self.path} exists already. Delete it to make it anew, or choose another "
                            "path")
        self.damaged: tuple[str, ...] = ()
        self._lock: FolderLock | None = None
        self._environment: Any = None  # of LMDB; open from the first scene to `finish`
        self._known: dict[tuple, str] | None = None
        self._used: set[str] = set()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        with self._environment.begin() as transaction:
            return transaction.get(SCENE_PREFIX + name.encode()) is not None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the scenes in the store so far, sorted."""
        with self._environment.begin() as transaction:
            return tuple(scene.name for scene in _scenes(transaction))

    def add(self, name: str, frames: Mapping[str, np.ndarray], *, sources: Mapping | None = None,
            source_hashes: Mapping | None = None, tags: Mapping | None = None, crops: Mapping | None = None) -> None:
        """Add a scene.

        Args:
            name: any text without a slash at its ends, unique in the store.
            frames: by view ("left", "right", "center", "sharp": (H, W, channels) uint8, uint16 or
                float32; "disparity", "defocus", "depth": (H, W) float32), all of one height and width.
            sources: the file of each view, for the record.
            source_hashes: SHA-256 of these files where it is known; the others are read for it.
            tags: what is known of this scene, JSON values, e.g. `{"place": "indoor"}`.
            crops: by crop set, the origins `[row, column]` that its filter keeps here.

        Raises:
            DataError: the scene is there already, a frame has another size, shape or dtype, or a crop lies outside.
            StorageError: the disk is full; the scenes added before stay, and the build can go on.
        """
        if name in self:
            raise DataError(f"{self.path}: the scene {name!r} is added twice; scene names must differ")
        _check(self.path, name, frames)
        sources, records, values, new = dict(sources or {}), {}, {}, {}
        for view, frame in frames.items():
            content, key = (frame_hash(frame), tuple(frame.shape), frame.dtype.name), frame_key(name, view)
            there = self._contents().get(content) or new.get(content)
            if there is None:
                if key.decode() in self._used:
                    # A scene of this name was removed, and others still share this frame of it.
                    key += b"#" + content[0][:8].encode()
                    there = key.decode()
                new[content] = key.decode()
                values[key] = np.ascontiguousarray(frame, frame.dtype.newbyteorder("<")).data
            source, known = sources.get(view), (source_hashes or {}).get(view)
            records[view] = FrameRecord(tuple(frame.shape), frame.dtype.name, content[0], self._relative(source),
                                        None if source is None else known or file_hash(source), stored_as=there)
        scene = SceneRecord(name, records, dict(tags or {}), {k: list(v) for k, v in (crops or {}).items()})
        text = scene.as_json()
        try:
            check_scene(json.loads(text), self.manifest.facts["crop_sets"])
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from None
        self._commit({**values, SCENE_PREFIX + name.encode(): text.encode()})
        self._contents().update(new)
        self._used.update(new.values())

    def read(self, name: str, view: str) -> np.ndarray:
        """Return a frame that was added, as it was."""
        with self._environment.begin(buffers=True) as transaction:
            record = SceneRecord.from_json(bytes(transaction.get(SCENE_PREFIX + name.encode()))).views[view]
            key = record.stored_as.encode() if record.stored_as else frame_key(name, view)
            return np.frombuffer(transaction.get(key), record.disk_dtype).reshape(record.shape).astype(record.dtype)

    def remove(self, name: str) -> None:
        """Forget a scene, so that it can be added anew; frames that other scenes share stay."""
        with self._environment.begin() as transaction:
            scenes = list(_scenes(transaction))
        shared = {frame.stored_as for scene in scenes if scene.name != name for frame in scene.views.values()}
        gone = next(scene for scene in scenes if scene.name == name)
        keys = {frame.stored_as or frame_key(name, view).decode() for view, frame in gone.views.items()}
        others = {frame_key(scene.name, view).decode() for scene in scenes if scene.name != name
                  for view, frame in scene.views.items() if not frame.stored_as}
        with storage_errors(self.partial), self._environment.begin(write=True) as transaction:
            for key in [SCENE_PREFIX.decode() + name, *(keys - shared - others)]:
                transaction.delete(key.encode())
        self._known = None

    def _contents(self) -> dict[tuple, str]:
        """Return the key by content of every frame in the store so far: many inputs may share one truth."""
        if self._known is None:
            with self._environment.begin() as transaction:
                self._known = {(frame.sha256, frame.shape, frame.dtype):
                               frame.stored_as or frame_key(scene.name, view).decode()
                               for scene in _scenes(transaction) for view, frame in scene.views.items()}
            self._used = set(self._known.values())
        return self._known

    def finish(self) -> LmdbStore:
        """Write the manifest, give the store its name and open it.

        Raises:
            DataError: no scene was added.
            StorageError: the disk is full.
        """
        with self._environment.begin() as transaction:
            scenes = {scene.name: scene for scene in _scenes(transaction)}
        if not scenes:
            raise DataError(f"{self.path}: no scene was added, so there is nothing to finish")
        text = Manifest(self.manifest.dataset, self.manifest.facts, scenes, complete=True).as_json()
        self._commit({MANIFEST_KEY: text, HASH_KEY: hashlib.sha256(text).digest()})
        with storage_errors(self.path):
            self._environment.sync(True)
            self._environment.close()
            self._environment = None
            for name in ("building.lock", "lock.mdb"):  # the former of builds that an earlier version began
                (self.partial / name).unlink(missing_ok=True)
            if os.path.lexists(self.path):
                raise DataError(f"{self.path} exists already: it was made while this store was being built. Delete it, "
                                "and run the same command again")
            os.rename(self.partial, self.path)
            sync_folder(self.path.parent)
        self.close()
        return LmdbStore(self.path)

    def close(self) -> None:
        """Let go of the files; an unfinished store stays as `<path>.partial`."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open(self) -> None:
        self._lock = FolderLock(self.path, f"building the store {self.path.name}", beside=True,
                                error=DataError)
        with storage_errors(self.partial):
            data = self.partial / "data.mdb"
            for place in (self.partial, data, self.partial / "lock.mdb"):   # LMDB opens both, and follows links
                if place.is_symlink():
                    raise DataError(f"{place}: expected to build the store there, found a link. Remove it, or choose "
                                    "another path")
            self.partial.mkdir(parents=True, exist_ok=True)
            if data.exists() and data.stat().st_size < _SMALLEST_DATABASE:
                data.unlink()  # killed while LMDB was making the file: nothing is in it yet
            size = max(_START_SIZE, 2 * data.stat().st_size if data.exists() else 0)
            begun = data.exists()
            try:
                if begun:
                    unreadable = unreadable_part(self.partial)
                    if unreadable:
                        raise lmdb.CorruptedError(unreadable)
                # A power cut may undo the last scene, not more; all is put on disk before the store gets its name.
                self._environment = lmdb.open(str(self.partial), map_size=size, max_readers=8, metasync=False)
                with self._environment.begin() as transaction:
                    text = transaction.get(MANIFEST_KEY)
            except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError, lmdb.PageNotFoundError) as error:
                raise self._broken(error) from None
        if text is None:
            self._commit({MANIFEST_KEY: self.manifest.as_json()})
            return
        there = Manifest.from_json(text, self.partial)
        if (there.dataset, there.facts) != (self.manifest.dataset, self.manifest.facts):
            different = [f"{key}: {there.facts.get(key)!r} there, {self.manifest.facts.get(key)!r} now"
                         for key in {**there.facts, **self.manifest.facts}
                         if there.facts.get(key) != self.manifest.facts.get(key)]
            if there.dataset != self.manifest.dataset:
                different.insert(0, f"data set: {there.dataset!r} there, {self.manifest.dataset!r} now")
            raise DataError(f"{self.partial} holds an interrupted build with other facts "
                            f"({'; '.join(different)}). Delete that folder to start anew, or build with "
                            "the settings it was begun with")
        try:
            self._check_kept()
        except lmdb.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: object) -> DataError:
        return DataError(f"{self.partial}: the interrupted build is damaged ({error}). Delete that "
                         "folder and run the same command again")

    def _check_kept(self) -> None:
        """Take scenes out whose frames are not what an interrupted build wrote."""
        sound: dict[str, str] = {}
        damaged = []
        with self._environment.begin(buffers=True) as transaction:
            keys = [bytes(key) for key, _ in _records(transaction)]
            for key in keys:
                try:
                    scene = json.loads(bytes(transaction.get(key)))
                    check_scene(scene, self.manifest.facts["crop_sets"])
                    scene = SceneRecord.from_json(scene)
                    whole = key == SCENE_PREFIX + scene.name.encode()
                except (ValueError, KeyError, TypeError, RecursionError):
                    whole = False
                if whole:
                    for view, record in scene.views.items():
                        place = record.stored_as or frame_key(scene.name, view).decode()
                        if place not in sound:
                            value = transaction.get(place.encode())
                            sound[place] = "" if value is None else hashlib.sha256(value).hexdigest()
                        whole = whole and sound[place] == record.sha256
                if not whole:
                    damaged.append(key)
        if damaged:
            with storage_errors(self.partial), self._environment.begin(write=True) as transaction:
                for key in damaged:
                    # Their frames are written over when the scenes are added anew.
                    transaction.delete(key)
            self.damaged = tuple(key[len(SCENE_PREFIX):].decode(errors="replace") for key in damaged)

    def _commit(self, values: Mapping[bytes, bytes | memoryview]) -> None:
        """Write `values` in one transaction, enlarging the map as often as needed."""
        needed = sum(len(v) if isinstance(v, bytes) else v.nbytes for v in values.values())
        with storage_errors(self.partial):
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in values.items():
                            transaction.put(key, value)
                    return
                except lmdb.MapFullError:
                    size = self._environment.info()["map_size"]
                    self._environment.set_mapsize(2 * size + 2 * needed)

    def _relative(self, source: str | os.PathLike[str] | None) -> str | None:
        if source is None:
            return None
        source = Path(source)
        if self.source_root is not None and source.is_relative_to(self.source_root):
            source = source.relative_to(self.source_root)
        else:
            source = Path(source.name)
        # Names that are no UTF-8 are shown, since JSON could not hold them.
        return os.fsencode(source.as_posix()).decode("utf-8", "backslashreplace")


def _records(transaction: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and texts of the scene records of an open transaction, sorted by name."""
    cursor = transaction.cursor()
    cursor.set_range(SCENE_PREFIX)
    for key, value in cursor:
        if not bytes(key).startswith(SCENE_PREFIX):
            return
        yield bytes(key), bytes(value)


def _scenes(transaction: lmdb.Transaction) -> Iterator[SceneRecord]:
    """Yield the scene records of an open transaction, sorted by name."""
    for _, value in _records(transaction):
        yield SceneRecord.from_json(value)


def _check(path: Path, name: str, frames: Mapping[str, np.ndarray]) -> None:
    wrong = wrong_name(name)
    if wrong:
        raise DataError(f"{path}: {name!r} cannot name a scene: {wrong}")
    if not frames:
        raise DataError(f"{path}: scene {name!r} has no frames")
    sizes = {view: frame.shape[:2] for view, frame in frames.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{path}: the frames of scene {name!r} differ in size (rows, columns): "
                        + ", ".join(f"{view} {size}" for view, size in sizes.items()))
    for view, frame in frames.items():
        if view not in VIEWS + MAPS:
            raise DataError(f"{path}: scene {name!r}: no view is called {view!r}; views are "
                            f"{', '.join(VIEWS)}, maps {', '.join(MAPS)}")
        if frame.dtype.name not in DTYPES or 0 in frame.shape:
            raise DataError(f"{path}: {view} of scene {name!r} is {frame.dtype.name} {frame.shape}; expected "
                            f"at least one pixel of {', '.join(DTYPES)}")
        if not (frame.ndim == 3 and frame.shape[2] in (1, 3) if view in VIEWS else frame.ndim == 2):
            raise DataError(f"{path}: {view} of scene {name!r} has the shape {frame.shape}; expected "
                            f"{'(H, W, 3) or (H, W, 1)' if view in VIEWS else '(H, W)'}")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn failed writes into `StorageError`s that say how to go on."""
    try:
        yield
    except (OSError, lmdb.Error) as error:
        if isinstance(error, lmdb.Error):
            # LMDB calls a write that ended early an input/output error.
            full = shutil.disk_usage(_existing(path)).free < _NEARLY_FULL
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else OSError(errno.EIO, str(error))
        failed = storage_error(path, error)
        raise type(failed)(f"{failed}. Run the same command again to go on from there") from error


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
