"""Reading, checking and storing what a preparer found; resumable, with progress."""
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from k3dn_plugin.data.contact_sheet import write_contact_sheet
from k3dn_plugin.data.disparity_check import measure_disparity
from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.preparation.base import SceneFiles, Split, get_preparer
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.data.truth_check import TruthCheck
from k3dn_plugin.errors import DataError

MOST_FAULTS = 5
_READ_AHEAD = 2


@dataclass
class PreparedSplit:
    """One finished store; `was_there` if an earlier call had finished it."""

    split: Split
    store: LmdbStore
    was_there: bool = False

    def summary(self) -> str:
        """Lines for the user."""
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
        """What the shift between the views of some scenes says: their sign, and whether the axis is right."""
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


def prepare(name: str, source, out, *, bits: int | None = None, keep_portrait: bool = False,
            progress: bool = False) -> list[PreparedSplit]:
    """Make the stores `<out>/<split>.lmdb` of a data set.

    Scenes that an interrupted call stored are not read again; a store that is finished is left as it is.

    Args:
        name: of a preparer ("dpdd", "pairs", ...).
        source: the folder with the published files.
        out: the folder for the stores.
        bits: the depth that the files must have; the preparer's own if None.
        keep_portrait: store frames that are higher than wide as they are.
        progress: show a bar with the time left.

    Raises:
        DataError: the layout is incomplete or files are damaged; up to five faults are told at once. What
            was stored stays in `<split>.lmdb.partial`, and the same call goes on after the mend.
        StorageError: the disk is full; likewise.
    """
    preparer = get_preparer(name)
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise preparer.missing(source)
    splits = preparer.find(source)
    # All names are checked before the first picture is read.
    return [_prepare_split(preparer, split, source, out / f"{split.name}.lmdb", bits, keep_portrait, progress)
            for split in splits]


def _prepare_split(preparer, split, source, path, bits, keep_portrait, progress):
    wanted = {scene.name for scene in split.scenes}
    if path.exists():
        store = LmdbStore(path)
        if store.manifest.dataset != preparer.name or set(store.names) != wanted:
            raise DataError(f"{path} exists and holds other scenes than {source} ({len(store)} of "
                            f"{store.manifest.dataset}, {len(wanted)} now). Delete it to prepare it anew, or "
                            "choose another --out")
        if not sheet_path(path).exists():
            write_contact_sheet(store, sheet_path(path))  # the call that finished the store ended before it
        return PreparedSplit(split, store, was_there=True)
    bits = bits or preparer.bits or _depth(split.scenes[0])
    filters = preparer.crop_sets(split.name)
    facts = {**preparer.facts, "bit_depth": bits, "split": split.name,
             "crop_sets": {name: each.facts() for name, each in filters.items()}, **split.facts}
    with StoreWriter(path, dataset=preparer.name, facts=facts, source_root=source) as writer:
        strange = sorted(set(writer.names) - wanted)
        if strange:
            raise DataError(f"{writer.partial}: an interrupted build holds scene {strange[0]!r}, which is "
                            f"not in {source}. Delete that folder to start anew")
        check = TruthCheck()
        for scene in split.scenes:
            if scene.name in writer:
                views = [view for view in ("left", "right", "center", "sharp") if view in scene.files]
                check.add(scene.name, {view: writer.read(scene.name, view) for view in views})
        todo = [scene for scene in split.scenes if scene.name not in writer]
        faults = []
        read = _read_ahead(lambda scene: _load(preparer, scene, bits, keep_portrait, filters), todo)
        for scene, loaded in _bar(read, split, len(todo), progress):
            if isinstance(loaded, DataError):
                faults.append(loaded)
                if len(faults) == MOST_FAULTS:
                    break
            else:
                frames, crops = loaded
                writer.add(scene.name, frames, sources=scene.files, tags=scene.tags, crops=crops)
                check.add(scene.name, frames)
                _note_content(split, scene, frames)
        if faults:
            raise DataError(_tell(faults, split, len(writer)))
        faults = _misplaced(check, split, writer)
        if faults:
            raise DataError(_tell(faults[:MOST_FAULTS], split, len(writer)))
        doubtful = check.doubtful()
        if doubtful:
            split.notes.append(f"{len(doubtful)} sharp images are unlike their views, the most {doubtful[0][0]} "
                               f"(correlation {doubtful[0][1]:.2f}): look whether they show the same scene")
        store = writer.finish()
    write_contact_sheet(store, sheet_path(store.path))
    return PreparedSplit(split, store)


def sheet_path(path: Path) -> Path:
    """Where the contact sheet of the store at `path` goes: beside it."""
    return path.with_name(f"{path.stem}_contact_sheet.png")


def _load(preparer, scene, bits, keep_portrait, filters):
    """`(frames, crop origins by filter)` of a scene, or the error that its files deserve."""
    try:
        frames = preparer.load(scene, bits, keep_portrait)
    except DataError as error:
        return error
    return frames, {name: each.origins(frames["sharp"]) for name, each in filters.items()}


def _read_ahead(load, scenes) -> Iterator[tuple[SceneFiles, tuple | DataError]]:
    """`(scene, what load gives)` in order, a few scenes being decoded while one is stored."""
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


def _misplaced(check, split, writer):
    """Errors for sharp images of other scenes, which are taken out of the store again."""
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


def _bar(scenes, split, total, progress):
    if not progress:
        return scenes
    return tqdm(scenes, desc=split.name, total=total, unit="scene", dynamic_ncols=True)


def _depth(scene: SceneFiles) -> int:
    """Bits of a scene's first file."""
    return 8 * read_image(scene.files["left"]).dtype.itemsize


def _note_content(split: Split, scene: SceneFiles, frames: dict[str, np.ndarray]):
    """Note 16-bit files that were made from 8-bit ones: both bytes alike, or the low one empty."""
    left = frames["left"]
    if left.dtype != np.uint16 or any("8-bit content" in note for note in split.notes):
        return
    high, low = left >> 8, left & 255
    if high.any() and (not low.any() or np.array_equal(high, low)):
        split.notes.append(f"{scene.files['left']}: a 16-bit file with 8-bit content; scores on it are not "
                           "those of 16-bit originals")


def _tell(faults, split, stored):
    text = "\n".join(str(fault) for fault in faults)
    more = " (reading stopped there)" if len(faults) == MOST_FAULTS else ""
    return (f"{text}\n{len(faults)} scene{'s' * (len(faults) > 1)} of {split.name} cannot be used{more}. "
            f"{stored} are stored and stay; mend the files and run the same command again")
