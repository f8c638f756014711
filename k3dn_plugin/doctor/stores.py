"""Whether a prepared store is still what it says it is, and its views are what they should be."""
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from k3dn_plugin.data.disparity_check import measure_disparity
from k3dn_plugin.data.images import apparent_full_scale, has_8_bit_content
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.doctor import Finding
from k3dn_plugin.errors import DataError

MEASURED = 24       # scenes whose shift is measured, spread over the store
CLEAR = 0.3         # pixels; smaller shifts have no certain sign
MOST = 0.75         # share of scenes that must agree before a set is called swapped
PREPARE_AGAIN = "delete the folder and prepare it again (k3dn prepare --help)"


def verify(path: str | Path, progress: bool = False) -> list[Finding]:
    """Return what is wrong, or well, with the store at `path`, or with every store below it.

    Raises:
        DataError: there is no store.
    """
    path = Path(path)
    stores = [path] if (path / "data.mdb").is_file() or not path.is_dir() else sorted(
        p for p in path.iterdir() if (p / "data.mdb").is_file())
    if not stores:
        raise DataError(f"{path}: expected a store (a folder *.lmdb with data.mdb), or a folder of such; found none")
    return [finding for store in stores for finding in _verify_store(store, progress)]


def _verify_store(path: Path, progress: bool) -> Iterator[Finding]:
    try:
        store = LmdbStore(path)
    except DataError as error:
        yield Finding(path.name, "broken", str(error))
        return
    facts = store.manifest.facts
    views = sorted({view for scene in store.manifest.scenes.values() for view in scene.views})
    yield Finding(path.name, "ok", f"{len(store)} scenes of {store.manifest.dataset} ({', '.join(views)})")
    yield from _incomplete(path.name, store, views)
    yield from _damaged(path.name, store, progress)
    yield from _content(path.name, store)
    if facts["single_image"]:
        yield Finding(f"{path.name} views", "note", "single images: there is no disparity to check")
    else:
        yield from _disparity(path.name, store)


def _incomplete(name: str, store: LmdbStore, views: list[str]) -> Iterator[Finding]:
    for scene in store.manifest.scenes.values():
        missing = [view for view in views if view not in scene.views]
        if missing:
            yield Finding(f"{name} views", "broken", f"scene {scene.name} has no {' and no '.join(missing)}, others "
                          "have", PREPARE_AGAIN)
            return


def _damaged(name: str, store: LmdbStore, progress: bool) -> Iterator[Finding]:
    total = sum(len(scene.views) for scene in store.manifest.scenes.values())
    damaged = list(_shown(store.damaged_frames(), progress, name))
    if damaged:
        scene, view = damaged[0]
        yield Finding(f"{name} frames", "broken", f"{len(damaged)} of {total} frames are not what was written, the "
                      f"first: {view} of {scene}", f"copy the folder again, or {PREPARE_AGAIN}")
    else:
        yield Finding(f"{name} frames", "ok", f"all {total} have the hashes in the manifest")


def _shown(iterator: Iterator, progress: bool, name: str) -> Iterable:
    if not progress:
        return iterator
    return tqdm(iterator, desc=f"{name}: damaged frames", unit="frame")


def _content(name: str, store: LmdbStore) -> Iterator[Finding]:
    """Yield what is wrong with frames that cannot be photographs of their depth."""
    largest, facts = 0, store.manifest.facts
    for scene in store.names[::max(len(store) // MEASURED, 1)][:MEASURED]:
        try:
            left, right = (store.read(scene, view) for view in ("left", "right"))
        except DataError:
            continue  # reported as damaged
        if left.dtype == np.uint16:
            largest = max(largest, int(left.max()), int(right.max()))
        if left.min() == left.max():
            yield Finding(f"{name} content", "broken", f"the left view of {scene} is one flat value", PREPARE_AGAIN)
        elif np.array_equal(left, right) and not store.manifest.facts["single_image"]:
            yield Finding(f"{name} content", "broken", f"left and right view of {scene} are the same picture",
                          PREPARE_AGAIN)
        elif has_8_bit_content(left):
            yield Finding(f"{name} content", "note", f"{scene} has 16-bit numbers with 8-bit content: its source was "
                          "an 8-bit copy, which scores differently")
            return
    scale = apparent_full_scale(largest) if largest and facts["full_scale"] is None else None
    if scale is not None:
        yield Finding(f"{name} content", "broken" if scale < 16383 else "note",
                      f"no number of the 16-bit frames looked at exceeds {scale}: are they numbers of "
                      f"{scale.bit_length()} bits? Taken as 16 bits the pictures are nearly black and scores wrong",
                      f"if so, prepare the set again with --full-scale {scale}")


def _disparity(name: str, store: LmdbStore) -> Iterator[Finding]:
    """Yield the axis of the shift between the views, and its sign where something tells what it should be."""
    measured, agreeing = {}, []
    for scene in store.names[::max(len(store) // MEASURED, 1)][:MEASURED]:
        try:
            left, right = (store.read(scene, view) for view in ("left", "right"))
            found = measure_disparity(left, right)
        except DataError:
            continue
        if found is None:
            continue
        measured[scene] = found
        if "disparity" in store.scene(scene).views and "px, column" in store.manifest.facts["disparity_unit"]:
            truth = float(np.nanmedian(store.read(scene, "disparity")))
            if min(abs(truth), abs(found.columns[1])) > CLEAR:
                agreeing.append(truth * found.columns[1] > 0)
    label = f"{name} views"
    if not measured:
        yield Finding(label, "note", "the shift between the views cannot be measured: too little texture or blur")
        return
    vertical = [scene for scene, found in measured.items() if found.is_vertical]
    if len(vertical) > len(measured) / 2:
        yield Finding(label, "broken", f"shifted along the rows in {len(vertical)} of {len(measured)} scenes; "
                      "restorers expect the columns", "turn the files by 90 degrees and prepare them again")
        return
    medians = np.array([found.columns[1] for found in measured.values()])
    low, high = (float(np.median([found.columns[i] for found in measured.values()])) for i in (0, 2))
    text = f"right against left {low:+.1f} to {high:+.1f} px along the columns ({len(measured)} scenes measured)"
    usual = store.manifest.facts["usual_shift"]
    if agreeing:
        swapped, against = np.mean(agreeing) < 1 - MOST, "the stored disparity"
    elif usual is not None:
        clear = medians[np.abs(medians) > CLEAR]
        contrary = clear < 0 if usual == "positive" else clear > 0
        swapped, against = len(clear) > 0 and contrary.mean() >= MOST, f"the sign usual for this set ({usual})"
    else:
        yield Finding(label, "ok", f"{text}; nothing tells which sign is right. With Canon's order, content nearer "
                      "than focus lies further left in the right view (negative)")
        return
    if swapped:
        yield Finding(label, "broken", f"{text}, against {against}: left and right are swapped",
                      "exchange the two folders and prepare the set again")
    else:
        yield Finding(label, "ok", f"{text}, in agreement with {against}")
