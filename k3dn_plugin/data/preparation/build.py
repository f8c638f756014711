"""Reading, checking and storing what a preparer found; resumable, with progress."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from k3dn_plugin.data.contact_sheet import write_contact_sheet
from k3dn_plugin.data.crop_sets import PatchFilter
from k3dn_plugin.data.disparity_check import measure_disparity
from k3dn_plugin.data.images import apparent_full_scale, has_8_bit_content, read_image
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, get_preparer
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.data.truth_check import TruthCheck
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import FolderLock, user_path

MOST_FAULTS = 5  # that are shown
_READ_AHEAD = 2
# Frames, crop origins by filter, and the hashes of the files by view where they are known; or what is wrong with them.
Loaded = tuple[dict[str, np.ndarray], dict[str, list], dict[str, str]] | DataError
# Gives the scenes of a split (the second argument, of all that the third holds) as they were read elsewhere.
Made = Callable[[Split, list[SceneFiles], list[SceneFiles]], Iterator[tuple[SceneFiles, Loaded]]]


@dataclass
class PreparedSplit:
    """One finished store; `was_there` if an earlier call had finished it."""

    split: Split
    store: LmdbStore
    was_there: bool = False

    def summary(self) -> str:
        """Return lines for the user."""
        scenes = self.store.manifest.scenes.values()
        sizes = sorted({scene.size for scene in scenes})
        turned = sum(scene.tags.get("rotated") == 90 for scene in scenes)
        views = list(next(iter(scenes)).views)
        lines = [f"{self.store.path}{' (was ready)' if self.was_there else ''}: {len(self.store)} scenes of "
                 f"{', '.join(views)}; {self.store.manifest.facts['bit_depth']} bits; "
                 + ", ".join(f"{h} x {w}" for h, w in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
                 + " (rows x columns)" + (f"; {turned} of them portrait, turned" if turned else "")]
        sheet = sheet_path(self.store.path)
        lines += [f"  contact sheet: {sheet}"] if sheet.exists() else []
        wanted = get_preparer(self.store.manifest.dataset).size
        strange = [scene.name for scene in scenes if wanted not in (None, scene.size, scene.size[::-1])]
        if strange:
            lines.append(f"  note: {len(strange)} scenes are not of the published {wanted[0]} x {wanted[1]} "
                         f"(the first: {strange[0]}): a resized copy scores differently")
        return "\n".join(lines + self._shifts() + [f"  note: {note}" for note in self.split.notes])

    def _shifts(self) -> list[str]:
        """Return what the shift between the views of some scenes says: their sign, and whether the axis is right."""
        if self.store.manifest.facts["single_image"]:
            return []
        names = self.store.names[::max(len(self.store) // 2, 1)][:3]
        found = [measure_disparity(self.store.read(n, "left"), self.store.read(n, "right")) for n in names]
        found = [measured for measured in found if measured is not None]
        if not found:
            return []
        low, high = min(f.columns[0] for f in found), max(f.columns[2] for f in found)
        lines = [f"  views: right against left {low:+.1f} to {high:+.1f} px along the columns (some scenes, "
                 "measured)"]
        if all(measured.is_vertical for measured in found):
            lines.append("  warning: the views are shifted along the rows. Restorers expect the columns: turn "
                         "all files by 90 degrees, or prepare portrait frames without --keep-portrait")
        return lines


def prepare(name: str, source: str | Path, out: str | Path, *, bits: int | None = None, full_scale: int | None = None,
            keep_portrait: bool = False, progress: bool = False, made: Made | None = None) -> list[PreparedSplit]:
    """Make the stores `<out>/<split>.lmdb` of a data set.

    Scenes that an interrupted call stored are not read again; a store that is finished is left as it is.

    Args:
        name: of a preparer ("dpdd", "pairs", ...).
        source: the folder with the published files.
        out: the folder for the stores.
        bits: the depth that the files must have; the preparer's own if None.
        full_scale: the number that stands for white, where files of 16 bits hold fewer (4095 for 12 bits).
        keep_portrait: store frames that are higher than wide as they are.
        progress: show a bar with the time left.
        made: gives scenes that were read elsewhere (`prepare_part`), instead of reading them here.

    Raises:
        DataError: the layout is incomplete or files are damaged; all scenes are read, and the first five faults
            reported at the end. What was stored stays in `<split>.lmdb.partial`, and the same call goes on once the
            files are corrected.
        OptionError: an impossible full scale.
        StorageError: the disk is full, likewise; or another process prepares data in the same folder.
    """
    out = user_path(out)
    settings, splits = _found(name, source, bits, full_scale, keep_portrait, progress)
    with FolderLock(out, f"preparing {name}"):
        return [_prepare_split(settings, split, out / f"{split.name}.lmdb", made) for split in splits]


def prepare_part(name: str, source: str | Path, path: Path, *, split: str, only: Sequence[int],
                 bits: int | None = None, full_scale: int | None = None, keep_portrait: bool = False) -> dict[str, str]:
    """Make a store with some of the scenes of a split, as a part of the whole one.

    Args:
        path: the store.
        split: its name.
        only: numbers of its scenes.

    Returns:
        what is wrong with scenes that cannot be used, by name; where all are, there is no store.

    Raises:
        DataError, OptionError, StorageError: as `prepare`.
    """
    settings, splits = _found(name, source, bits, full_scale, keep_portrait, False)
    whole = next(one for one in splits if one.name == split)
    facts, depth, filters = _facts(settings, whole)
    faults: dict[str, str] = {}
    if path.exists():  # the call that made it ended before it could say what is wrong with the others
        there = LmdbStore(path).names
        todo = [whole.scenes[number] for number in only if whole.scenes[number].name not in there]
        return {scene.name: str(loaded) for scene, loaded in _read_ahead(
            lambda scene: _load(settings, scene, depth, filters), todo)}
    with StoreWriter(path, dataset=settings.preparer.name, facts=facts, source_root=settings.source) as writer:
        todo = [whole.scenes[number] for number in only if whole.scenes[number].name not in writer]
        for scene, loaded in _read_ahead(lambda scene: _load(settings, scene, depth, filters), todo):
            if isinstance(loaded, DataError):
                faults[scene.name] = str(loaded)
            else:
                writer.add(scene.name, loaded[0], sources=scene.files, tags=scene.tags, crops=loaded[1])
        if len(writer):
            writer.finish()
    return faults


def _found(name: str, source: str | Path, bits: int | None, full_scale: int | None, keep_portrait: bool,
           progress: bool) -> "tuple[_Settings, list[Split]]":
    """The settings of a call, checked, and the splits that the source holds."""
    preparer, source = get_preparer(name), user_path(source)
    if full_scale is not None and (not 255 < full_scale <= 65535 or (bits or 16) != 16):
        raise OptionError(f"--full-scale {full_scale}: expected the largest number of 16-bit files that hold fewer "
                          "bits, 256 to 65535 (1023, 4095 or 16383 for 10, 12 or 14 bits)")
    try:
        if not source.is_dir():
            raise preparer.missing(source)
        splits = preparer.find(source)
    except OSError as error:
        raise DataError(f"{error.filename or source}: cannot be read ({error.strerror or error}). Check the path and "
                        "its permissions") from None
    # All names are checked before the first picture is read.
    return _Settings(preparer, source, bits, full_scale, keep_portrait, progress), splits


@dataclass(frozen=True)
class _Settings:
    """What holds for all splits of one call."""

    preparer: Preparer
    source: Path
    bits: int | None
    full_scale: int | None
    keep_portrait: bool
    progress: bool


def _facts(settings: _Settings, split: Split) -> tuple[dict, int, Mapping[str, PatchFilter]]:
    """What holds for all scenes of a split, the bits of its files, and the filters of crops."""
    preparer = settings.preparer
    bits = settings.bits or preparer.bits or (16 if settings.full_scale else _depth(split.scenes))
    filters = preparer.crop_sets(split.name)
    facts = {**preparer.facts, "bit_depth": bits, "split": split.name,
             "crop_sets": {name: each.facts() for name, each in filters.items()}, **split.facts}
    if settings.full_scale is not None:
        if bits != 16 or facts.get("full_scale") is not None:
            raise OptionError(f"--full-scale {settings.full_scale}: {preparer.name} has "
                              + ("files of 8 bits" if bits != 16 else f"its own, {facts['full_scale']}"))
        facts |= {"bit_depth": settings.full_scale.bit_length(), "full_scale": settings.full_scale}
    return facts, bits, filters


def _prepare_split(settings: _Settings, split: Split, path: Path, made: Made | None) -> PreparedSplit:
    preparer, source = settings.preparer, settings.source
    wanted = {scene.name for scene in split.scenes}
    if path.exists():
        store = LmdbStore(path)
        if store.manifest.dataset != preparer.name or set(store.names) != wanted:
            raise DataError(f"{path} exists and holds other scenes than {source} ({len(store)} of "
                            f"{store.manifest.dataset}, {len(wanted)} now). Delete it to prepare it anew, or "
                            "choose another --out")
        if settings.full_scale not in (None, store.manifest.facts["full_scale"]):
            raise DataError(f"{path} exists and was made with the full scale {store.manifest.facts['full_scale']}, not "
                            f"{settings.full_scale}. Delete it to prepare it anew, or choose another --out")
        if not sheet_path(path).exists():
            write_contact_sheet(store, sheet_path(path))  # the call that finished the store ended before it
        return PreparedSplit(split, store, was_there=True)
    facts, bits, filters = _facts(settings, split)
    content = _Content(facts.get("full_scale"))
    with StoreWriter(path, dataset=preparer.name, facts=facts, source_root=source) as writer:
        strange = sorted(set(writer.names) - wanted)
        if strange:
            raise DataError(f"{writer.partial}: an interrupted build holds scene {strange[0]!r}, which is "
                            f"not in {source}. Delete that folder to start anew")
        if writer.damaged:
            split.notes.append(f"{len(writer.damaged)} scenes that an interrupted build had stored were damaged and "
                               f"were stored anew (the first: {writer.damaged[0]}); check the disk")
        check = TruthCheck()
        for scene in split.scenes:
            if scene.name in writer:
                views = [view for view in ("left", "right", "center", "sharp") if view in scene.files]
                frames = {view: writer.read(scene.name, view) for view in views}
                check.add(scene.name, frames)
                content.add(scene, frames)
        todo = [scene for scene in split.scenes if scene.name not in writer]
        faults = []
        read = (_read_ahead(lambda scene: _load(settings, scene, bits, filters), todo) if made is None
                else made(split, todo, split.scenes))
        for scene, loaded in _bar(read, split, len(todo), settings.progress):
            if isinstance(loaded, DataError):
                faults.append(loaded)
            else:
                frames, crops, hashes = loaded
                writer.add(scene.name, frames, sources=scene.files, source_hashes=hashes, tags=scene.tags, crops=crops)
                check.add(scene.name, frames)
                content.add(scene, frames)
        if faults:
            raise _cannot_be_used(faults, split, len(writer))
        faults = _misplaced(check, split, writer)
        if faults:
            raise _cannot_be_used(faults, split, len(writer))
        split.notes += content.notes()
        doubtful = check.doubtful()
        if doubtful:
            split.notes.append(f"{len(doubtful)} sharp images are unlike their views, the most {doubtful[0][0]} "
                               f"(correlation {doubtful[0][1]:.2f}): look whether they show the same scene")
        store = writer.finish()
    write_contact_sheet(store, sheet_path(store.path))
    return PreparedSplit(split, store)


def sheet_path(path: Path) -> Path:
    """Return where the contact sheet of the store at `path` goes: beside it."""
    return path.with_name(f"{path.stem}_contact_sheet.png")


@dataclass
class _Content:
    """Collects what the numbers of a split's 16-bit files tell of where they came from."""

    full_scale: float | dict | None
    largest: int = 0
    eight_bit: list[Path] = field(default_factory=list)

    def add(self, scene: SceneFiles, frames: Mapping[str, np.ndarray]) -> None:
        """Take the frames of a scene into account."""
        for view, frame in frames.items():
            if frame.dtype == np.uint16:
                self.largest = max(self.largest, int(frame.max()))
                if view == "left" and not self.eight_bit and has_8_bit_content(frame):
                    self.eight_bit.append(scene.files[view])

    def notes(self) -> list[str]:
        """Return what a user should know of it."""
        notes = [f"{path}: a 16-bit file with 8-bit content; scores on it are not those of 16-bit originals"
                 for path in self.eight_bit]
        scale = apparent_full_scale(self.largest) if self.full_scale is None and self.largest else None
        if scale is not None:
            notes.append(f"no number of these 16-bit files exceeds {scale}: are they numbers of {scale.bit_length()} "
                         "bits? Taken as 16 bits the pictures are nearly black and scores wrong. If so, delete the "
                         f"store and prepare it again with --full-scale {scale}")
        return notes


def _load(settings: _Settings, scene: SceneFiles, bits: int, filters: Mapping[str, PatchFilter]) -> Loaded:
    """Return frames and crop origins of a scene, or the error that its files deserve."""
    try:
        frames = settings.preparer.load(scene, bits, settings.keep_portrait)
        for view, frame in frames.items():
            if settings.full_scale is not None and frame.dtype == np.uint16 and frame.max() > settings.full_scale:
                raise DataError(f"{scene.files[view]}: holds the number {frame.max()}, above --full-scale "
                                f"{settings.full_scale}. Give the true one, or leave it out")
        return frames, {name: each.origins(frames["sharp"]) for name, each in filters.items()}, {}
    except DataError as error:
        return error
    except (OSError, MemoryError) as error:
        return DataError(f"scene {scene.name}: {scene.files['left']} or a file beside it cannot be read "
                         f"({getattr(error, 'strerror', None) or error or 'not enough memory'})")


def _read_ahead(load: Callable[[SceneFiles], Loaded],
                scenes: Iterable[SceneFiles]) -> Iterator[tuple[SceneFiles, Loaded]]:
    """Yield `(scene, what load gives)` in order, a few scenes being decoded while one is stored."""
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        waiting = deque()
        for scene in scenes:
            waiting.append((scene, pool.submit(load, scene)))
            if len(waiting) > _READ_AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _misplaced(check: TruthCheck, split: Split, writer: StoreWriter) -> list[DataError]:
    """Return errors for sharp images of other scenes, which are taken out of the store again."""
    files = {scene.name: scene.files for scene in split.scenes}
    faults = {}
    for name, view, shown in check.misplaced():
        if files[name][view] == files[shown][view]:
            continue  # scenes that share one truth, of which the other is in better focus
        beside = "center" if view == "sharp" and "center" in files[name] else "left"
        faults.setdefault(name, []).append(
            f"scene {name}: its {view} {'image' if view == 'sharp' else 'view'} {files[name][view]} shows scene "
            f"{shown} (by its likeness to {files[shown][beside]}, and unlike {files[name][beside]}). Put its own in "
            "that place")
    for name in faults:
        writer.remove(name)
    return [DataError("\n".join(texts)) for texts in faults.values()]


def _bar(scenes: Iterator, split: Split, total: int, progress: bool) -> Iterable:
    if not progress:
        return scenes
    return tqdm(scenes, desc=split.name, total=total, unit="scene", dynamic_ncols=True)


def _depth(scenes: Iterable[SceneFiles]) -> int:
    """Return the bits of the first file that can be read."""
    first = None
    for scene in scenes:
        try:
            return 8 * read_image(scene.files["left"]).dtype.itemsize
        except DataError as error:
            first = first or error
    raise first or DataError("there are no scenes")


def _cannot_be_used(faults: list[DataError], split: Split, stored: int) -> DataError:
    shown = faults[:MOST_FAULTS]
    text = "\n".join(str(fault) for fault in shown)
    more = f" (the first {len(shown)} are shown)" if len(faults) > len(shown) else ""
    return DataError(f"{text}\n{len(faults)} scene{'s' * (len(faults) > 1)} of {split.name} cannot be used{more}. "
                     f"{stored} are stored and stay; correct the files and run the same command again")
