"""The demo's data: training scenes from photographs, and a real scene with true depth that is never trained on."""
from pathlib import Path

import numpy as np
import torch

from k3dn_plugin.data.contact_sheet import write_contact_sheet
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.errors import DependencyError
from k3dn_plugin.files import user_path
from k3dn_plugin.simulation.build import build_simulated, finished_store, picture_path, progress
from k3dn_plugin.simulation.layers import fill_holes
from k3dn_plugin.simulation.optics import blur_radius_from_disparity
from k3dn_plugin.simulation.pairs import FACTS, SimulationSettings, simulate_from_depth
from k3dn_plugin.simulation.photographs import bundled_folder, bundled_photographs, load_linear
from k3dn_plugin.simulation.psf import PsfSettings
from k3dn_plugin.simulation.sensor import SensorSettings

MAX_RADIUS = 5.0
# The families are named, so that one more in the package does not change the demo.
TRAIN = SimulationSettings(size=(288, 288), max_radius=MAX_RADIUS, separation=(0.5, 1.0), frame=None,
                           smooth_share=0.0, distortion_share=0.0,
                           families=("butterworth", "half_disc", "soft_disc", "translating_disc"))
# Where the lens is focused on the held-out scene, as quantiles of its disparity: far, middle, near.
FOCUS = (0.1, 0.5, 0.9)
# One lens for the held-out scene that is none of those drawn for training, but like them.
HELD_OUT_PSF = PsfSettings(family="soft_disc", separation=0.85, parameters={"softness": 0.2})


def build_demo(folder: str | Path, *, scenes: int = 40, seed: int = 0) -> tuple[LmdbStore, LmdbStore]:
    """Build `train.lmdb` and `val.lmdb` in a folder; what is there already is not made again.

    Raises:
        DependencyError: scikit-image's pictures are missing.
        StorageError: the disk is full.
    """
    folder = Path(folder)
    train = build_simulated(folder / "train.lmdb", bundled_photographs(), count=scenes, settings=TRAIN, seed=seed)
    return train, build_motorcycle(folder / "val.lmdb", seed=seed)


def build_motorcycle(out: str | Path, *, seed: int = 0) -> LmdbStore:
    """Build a store of the Middlebury motorcycle scene, blurred for three focus distances.

    Scharstein et al., GCPR 2014; its disparity is the true one.
    """
    out = user_path(out)
    if out.exists():
        return finished_store(out, len(FOCUS))
    image, disparity = load_motorcycle()
    facts = {**FACTS, "scene": "Middlebury 2014 motorcycle", "max_radius": MAX_RADIUS, "seed": seed,
             "psf": HELD_OUT_PSF.family}
    with StoreWriter(out, dataset="simulated", facts=facts) as writer:
        for index in progress(range(len(FOCUS)), f"simulating {out.name}"):
            name = f"motorcycle_focus_{round(100 * FOCUS[index]):02d}"
            if name in writer:
                continue
            in_focus = float(np.quantile(disparity.numpy(), FOCUS[index]))
            radius = blur_radius_from_disparity(disparity, in_focus=in_focus, max_radius=MAX_RADIUS)
            writer.add(name, simulate_from_depth(image, radius, HELD_OUT_PSF, SensorSettings(),
                                                 seed=seed + 1, index=index))
        store = writer.finish()
    write_contact_sheet(store, picture_path(store), len(FOCUS))
    return store


def load_motorcycle() -> tuple[torch.Tensor, torch.Tensor]:
    """Return (3, H, W) linear light and (H, W) disparity in pixels; unknown disparities take their neighbors'."""
    folder = bundled_folder()
    picture, truth = folder / "motorcycle_left.png", folder / "motorcycle_disp.npz"
    for path in (picture, truth):
        if not path.is_file():
            raise DependencyError(f"{path} is missing: this scikit-image is not the tested one; "
                                  "pip install -r requirements/pinned.txt")
    with np.load(truth) as arrays:
        disparity = arrays[arrays.files[0]].astype(np.float32)
    known = torch.from_numpy(np.isfinite(disparity) & (disparity > 0))
    clean = torch.from_numpy(np.where(known, disparity, 0).astype(np.float32))
    return load_linear(picture), fill_holes(clean[None], known[None].float())[0]
