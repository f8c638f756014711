"""DPD-disp of Punnappurath et al. (ICCP 2020): pairs with depth, without a sharp truth."""
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.listing import files_with_ending
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, check_frames, turned
from k3dn_plugin.data.preparation.files import match_views
from k3dn_plugin.data.preparation.single_images import how_many
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import file_hash
from k3dn_plugin.registry import PREPARERS

ENDINGS = {"left": "_L", "right": "_R", "center": "_B", "depth": "_D"}
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@PREPARERS.register_module()
class DPDDisp(Preparer):
    """100 evaluation scenes; depth maps are 8-bit, larger being nearer, 0 where nothing is known."""

    name = "dpd_disp"
    title = "DPD-disp (Punnappurath et al., ICCP 2020): 100 pairs with depth, no sharp truth"
    tree = ("  SOURCE/NNN_L.jpg    left view      SOURCE/NNN_R.jpg    right view\n"
            "  SOURCE/NNN_B.jpg    combined       SOURCE/NNN_D.TIF    depth")
    size = (2940, 5180)
    facts = {"source": "Punnappurath et al., Modeling Defocus-Disparity in Dual-Pixel Sensors, ICCP 2020",
             "licence": "see its repository",
             "linear": False, "disparity_axis": "x",
             "depth_unit": "8-bit levels of inverse depth, larger being nearer, up to an affine map; NaN where not "
                           "known"}

    def find(self, source: Path) -> list[Split]:
        """Return one split, the test."""
        files = {view: files_with_ending(source, ending, SUFFIXES) for view, ending in ENDINGS.items()}
        if not any(files.values()):
            raise self.missing(source)
        empty = next((view for view, found in files.items() if not found), None)
        if empty:
            raise DataError(f"{source}: expected the {empty} images (NNN{ENDINGS[empty]}), found none")
        names = match_views(files)
        _check_twins(files["depth"])
        scenes = [SceneFiles(name, {view: files[view][name] for view in files}) for name in names]
        return [Split("test", scenes, notes=[
            "no sharp images: this set judges disparity, and scores that need no truth",
            *how_many(len(names), 100, "scenes")], facts={"official_scenes": 100})]

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read the views and the depth, unknown values of which become NaN."""
        frames = {view: read_image(scene.files[view], bits=bits, gray=True) for view in ("left", "right", "center")}
        depth = read_image(scene.files["depth"], gray=True)
        if depth.dtype != np.uint8:
            raise DataError(f"{scene.files['depth']}: expected a depth map of 8 bits as published, the file has "
                            f"{8 * depth.itemsize}; copy the original file")
        check_frames(scene, {**frames, "depth": np.broadcast_to(depth[..., :1], frames["left"].shape)}
                     if depth.shape[:2] == frames["left"].shape[:2] else {**frames, "depth": depth})
        values = depth[..., 0].astype(np.float32)
        values[values == 0] = np.nan
        frames["depth"] = values
        return frames if keep_portrait else turned(scene, frames)


def _check_twins(files: dict[str, Path]) -> None:
    """Refuse one depth map for two scenes; a map that merely lies at the wrong scene cannot be noticed."""
    seen = {}
    sizes = [path.stat().st_size for path in files.values()]
    for scene, path in files.items():
        if sizes.count(path.stat().st_size) > 1:
            other = seen.setdefault(file_hash(path), scene)
            if other != scene:
                raise DataError(f"scene {scene}: its depth map {path} is that of scene {other} ({files[other].name}); "
                                "copy the original file")
