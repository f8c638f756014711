"""Stores of simulated scenes, built so that an interruption loses nothing."""
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from k3dn_plugin.data.contact_sheet import write_contact_sheet
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.errors import OptionError
from k3dn_plugin.files import user_path
from k3dn_plugin.simulation.pairs import random_source, simulate_scene
from k3dn_plugin.simulation.rgbd import RgbdSettings, check_rgbd, draw_rgbd_scene
from k3dn_plugin.simulation.settings import SimulationSettings, check_settings
from k3dn_plugin.simulation.sources import Photographs, RgbdFolder

T = TypeVar("T")
# Gives the frames of scenes (the first argument, of all that the second names) from wherever they were made.
Made = Callable[[Sequence[str], Sequence[str]], Iterable[tuple[str, Mapping[str, np.ndarray]]]]


def build_simulated(out: str | Path, photos: str | Path | Sequence[str | Path] | None, *,
                    count: int, settings: SimulationSettings, seed: int = 0, device: str = "cpu",
                    only: Sequence[int] | None = None, made: Made | None = None) -> LmdbStore:
    """Build a store of `count` scenes from photographs, and a picture of a few of them beside it.

    Args:
        out: the store's folder; if it is there already it is left as it is.
        photos: files, a folder of them, or a store whose sharp frames are taken.
        count, settings, seed: how many, what they are like, and which.
        device: where they are rendered.
        only: the numbers of the scenes to store; a part of a store that is put together later has no picture.
        made: gives scenes that were made elsewhere, instead of making them here.

    Raises:
        OptionError: a setting is out of range.
        DataError: no photographs; or an unfinished store of other settings lies there.
        StorageError: the disk is full; what is finished stays and is not made again.
    """
    out = user_path(out)
    if out.exists():
        return LmdbStore(out) if only is not None else finished_store(out)
    check_settings(settings, count)
    if settings.mode != "layered":
        raise OptionError(f"mode {settings.mode} needs pictures with depth")
    pictures = Photographs(photos)
    facts = {**settings.as_facts(), "seed": seed, "photographs": [Path(p).name for p in pictures.names]}
    names = [f"scene_{index:05d}" for index in range(count)]
    return _build(out, names, facts, lambda index: simulate_scene(pictures, settings, seed=seed, index=index,
                                                                  device=device), only, made)


def build_from_depth(out: str | Path, pictures: RgbdFolder, *, settings: SimulationSettings,
                     rgbd: RgbdSettings | None = None, count: int | None = None, whole: bool = True,
                     seed: int = 0, device: str = "cpu", only: Sequence[int] | None = None,
                     made: Made | None = None) -> LmdbStore:
    """Build a store of scenes from pictures with depth, each picture in turn, with another lens every time.

    Args:
        out: the store's folder; if it is there already it is left as it is.
        pictures: the sources.
        settings: lens, sensor and mode.
        rgbd: how depth becomes blur.
        count: scenes; one for each picture if None.
        whole: whole pictures, else crops of `settings.size`.
        seed, device, only, made: as above.

    Raises:
        OptionError, DataError, StorageError: as above; or a picture and its depth do not belong together.
    """
    out, rgbd = user_path(out), rgbd or RgbdSettings()
    if out.exists():
        return LmdbStore(out) if only is not None else finished_store(out)
    count = len(pictures) if count is None else count
    check_settings(settings, count)
    check_rgbd(settings, rgbd)
    facts = {**settings.as_facts(), **rgbd.as_facts(), "seed": seed, "whole": whole,
             "pictures": pictures.names}
    names = [f"{pictures.names[i % len(pictures)]}_{i // len(pictures):02d}" for i in range(count)]
    return _build(out, names, facts, lambda index: draw_rgbd_scene(
        pictures[index % len(pictures)], settings, rgbd, random_source(seed, index), whole=whole,
        device=device), only, made)


def _build(out: Path, names: Sequence[str], facts: Mapping[str, Any],
           simulate: Callable[[int], dict[str, np.ndarray]], only: Sequence[int] | None,
           made: Made | None) -> LmdbStore:
    with StoreWriter(out, dataset="simulated", facts=facts) as writer:
        left_to_do = [i for i in (range(len(names)) if only is None else only) if names[i] not in writer]
        if made is not None:
            for name, frames in made([names[i] for i in left_to_do], names):
                writer.add(name, frames)
        else:
            for index in progress(left_to_do, f"simulating {out.name}"):
                writer.add(names[index], simulate(index))
        store = writer.finish()
    if only is not None:
        return store
    write_contact_sheet(store, picture_path(store))
    return store


def finished_store(out: Path, scenes: int = 4) -> LmdbStore:
    """Return a store that an earlier call has finished, with its picture, before which that call may have ended."""
    store = LmdbStore(out)
    if not picture_path(store).exists():
        write_contact_sheet(store, picture_path(store), scenes)
    return store


def picture_path(store: LmdbStore) -> Path:
    """Return where the picture of a few scenes lies: beside the store."""
    return Path(store.path).with_suffix(".png")


def progress(items: Collection[T], what: str) -> Iterable[T]:
    """Return `items` with a bar and the time left; plain lines where the output is no terminal."""
    return tqdm(items, desc=what, unit="scene", file=sys.stderr, mininterval=1.0,
                disable=None if sys.stderr.isatty() else len(items) < 2)
