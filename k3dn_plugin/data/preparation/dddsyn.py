"""DDDsyn of Pan et al. (CVPR 2021): pairs simulated from NYU Depth v2, with truth and disparity."""
from pathlib import Path

import numpy as np

from k3dn_plugin.data.depth_files import read_pfm
from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.listing import files_with_ending
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, check_frames
from k3dn_plugin.data.preparation.files import match_views
from k3dn_plugin.data.preparation.single_images import how_many
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import PREPARERS

# Split: its folders and how many pairs each has.
FOLDERS = {"train": {"training": 5000}, "test": {"testing": 350, "testing1": 150}}
FILES = {"left": ("dp", "_l.png"), "right": ("dp", "_r.png"), "sharp": ("gt", "_m.png"),
         "disparity": ("disp", "_dm.pfm")}


@PREPARERS.register_module()
class DDDsyn(Preparer):
    """5000 training and 500 test pairs, 480 x 640."""

    name = "dddsyn"
    title = "DDDsyn (DDDNet's simulated NYU pairs): 8-bit PNG, 480 x 640, PFM disparity"
    tree = ("  SOURCE/{training,testing,testing1}/dp/NNNN_l.png, NNNN_r.png    views\n"
            "  SOURCE/{training,testing,testing1}/gt/NNNN_m.png                all in focus\n"
            "  SOURCE/{training,testing,testing1}/disp/NNNN_dm.pfm             disparity")
    bits = 8
    size = (480, 640)
    facts = {"source": "Pan et al., Dual Pixel Exploration, CVPR 2021", "licence": "academic use only",
             "disparity_unit": "the simulator's pixels, larger being nearer, 0 the farthest; the views are "
                               "shifted by about half of it, the left view's content to the right"}

    def find(self, source: Path) -> list[Split]:
        """Return the training and the test pairs."""
        root = next((r for r in (source, source / "NYU") if any(
            (r / folder).is_dir() for folders in FOLDERS.values() for folder in folders)), None)
        if root is None:
            raise self.missing(source)
        splits = []
        for name, folders in FOLDERS.items():
            there = {folder: count for folder, count in folders.items() if (root / folder).is_dir()}
            scenes = [scene for folder in there for scene in _scenes(root / folder)]
            if scenes:
                splits.append(Split(name, scenes, notes=how_many(len(scenes), sum(folders.values()), "pairs")))
        return splits

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read the views, the sharp image and the disparity."""
        frames = {view: read_image(scene.files[view], bits=bits) for view in ("left", "right", "sharp")}
        check_frames(scene, frames)
        disparity = read_pfm(scene.files["disparity"])
        if disparity.shape != frames["left"].shape[:2]:
            raise DataError(f"scene {scene.name}: {scene.files['disparity']} is {disparity.shape[0]} x "
                            f"{disparity.shape[1]}, the views are {frames['left'].shape[0]} x "
                            f"{frames['left'].shape[1]}; all must have one size")
        if not np.isfinite(disparity).all():
            raise DataError(f"{scene.files['disparity']}: holds values that are not finite; copy it again")
        return {**frames, "disparity": disparity}


def _scenes(folder: Path) -> list[SceneFiles]:
    files = {}
    for view, (place, ending) in FILES.items():
        end, suffix = ending.split(".")
        found = files_with_ending(folder / place, end, (f".{suffix}",)) if (folder / place).is_dir() else {}
        if not found:
            raise DataError(f"{folder / place}: expected the {view} files (NNNN{ending}), found none")
        files[view] = found
    return [SceneFiles(f"{folder.name}/{name}", {view: files[view][name] for view in files},
                       {"setting": folder.name}) for name in match_views(files)]
