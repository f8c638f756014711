"""Stores of simulated scenes, built so that an interruption loses nothing."""
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.lmdb_store import LmdbStore
from k3dn_plugin.data.store_writer import StoreWriter
from k3dn_plugin.simulation.figure import contact_sheet
from k3dn_plugin.simulation.pairs import SimulationSettings, load_photographs, simulate_scene
from k3dn_plugin.simulation.photographs import photographs_in
from k3dn_plugin.simulation.settings import check_settings


def build_simulated(out, photos, *, count: int, settings: SimulationSettings, seed: int = 0) -> LmdbStore:
    """A store of `count` scenes from photographs, and a picture of a few of them beside it.

    Args:
        out: the store's folder; if it is there already it is left as it is.
        photos: files, or a folder of them.

    Raises:
        OptionError: a setting is out of range.
        DataError: no photographs; or an unfinished store of other settings lies there.
        StorageError: the disk is full; what is finished stays and is not made again.
    """
    out = Path(out)
    if out.exists():
        return LmdbStore(out)
    check_settings(settings, count)
    paths = photographs_in(photos) if isinstance(photos, (str, Path)) else list(photos)
    facts = {**settings.as_facts(), "seed": seed, "photographs": [Path(p).name for p in paths]}
    with StoreWriter(out, dataset="simulated", facts=facts) as writer:
        names = [f"scene_{index:05d}" for index in range(count)]
        left_to_do = [i for i, name in enumerate(names) if name not in writer]
        pictures = load_photographs(paths) if left_to_do else []
        for index in progress(left_to_do, f"simulating {out.name}"):
            writer.add(names[index], simulate_scene(pictures, settings, seed=seed, index=index))
        store = writer.finish()
    write_contact_sheet(store)
    return store


def write_contact_sheet(store, scenes: int = 4) -> Path:
    """`<store>.png`: left, right, sharp and defocus of a few scenes."""
    chosen = [store.names[i] for i in np.linspace(0, len(store.names) - 1, min(scenes, len(store.names)))
              .astype(int)]
    rows = [{view: store.read(name, view) for view in ("left", "right", "sharp", "defocus")}
            for name in chosen]
    path = Path(store.path).with_suffix(".png")
    write_image(path, contact_sheet(rows))
    return path


def progress(items, what):
    """`items` with a bar and the time left; plain lines where the output is no terminal."""
    return tqdm(items, desc=what, unit="scene", file=sys.stderr, mininterval=1.0,
                disable=None if sys.stderr.isatty() else len(items) < 2)
