"""The wall of Sdirt's real samples: pairs at F/4 with the same wall at F/20, which is their sharp truth."""
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.listing import list_files
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, check_frames
from k3dn_plugin.data.truth_check import BELOW, likeness
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import file_hash
from k3dn_plugin.registry import PREPARERS

PLACES = {"left": ("f4", "l"), "right": ("f4", "r"), "sharp": ("f20", "l"), "sharp_right": ("f20", "r")}


@PREPARERS.register_module()
class Sdirt(Preparer):
    """One scene a distance; the truth is the mean of the F/20 views, which coincide."""

    name = "sdirt"
    title = "Sdirt's wall (real_sample_set/flat of LinYark/Sdirt): F/4 pairs with F/20 truth, Canon R6 II, test only"
    tree = ("  SOURCE/[.../]DISTANCE/f4/l.png, r.png      views at F/4\n"
            "  SOURCE/[.../]DISTANCE/f20/l.png, r.png     views at F/20, whose mean is the truth")
    bits = 8
    size = (512, 768)
    facts = {"source": "LinYark/Sdirt (2025), real_sample_set/flat: Canon R6 II, RF 50 mm, focus at 1 m",
             "licence": "MIT; the posters on the wall are other people's artwork", "linear": False,
             "disparity_axis": "x", "orientation": "landscape, as published",
             # The truth is stored as the sum of two 8-bit views, so nothing is rounded.
             "truth": "mean of the F/20 views", "full_scale": {"left": 255, "right": 255, "sharp": 510}}

    def find(self, source: Path) -> list[Split]:
        """Return one split, the test, a scene for each distance."""
        roots = sorted({path.parent for aperture in ("f4", "f20") for path in source.rglob(aperture)
                        if path.is_dir()}) if source.is_dir() else []
        if not roots:
            raise self.missing(source)
        scenes = []
        for root in roots:
            files = {view: _view(root / folder, name) for view, (folder, name) in PLACES.items()}
            scene = root.relative_to(source).as_posix() if root != source else root.name
            scenes.append(SceneFiles(scene, files, {"distance_mm": int(root.name)} if root.name.isdecimal() else {}))
        return [Split("test", scenes, notes=["the truth is the mean of the F/20 views; its exposure is not fitted to "
                                             "that of the F/4 views"])]

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read the views, and the sum of the F/20 views as the sharp image."""
        if bits != 8:
            raise DataError(f"--bits {bits}: the truth of this set is the sum of two 8-bit views; leave --bits out")
        read = {view: read_image(path, bits=bits) for view, path in scene.files.items()}
        check_frames(scene, read)
        if np.array_equal(read["sharp"], read["left"]) or np.array_equal(read["sharp_right"], read["right"]):
            raise DataError(f"scene {scene.name}: {scene.files['sharp'].parent} holds the views of "
                            f"{scene.files['left'].parent}; expected those at F/20. Restore the originals")
        if likeness(read["sharp"], read["sharp_right"]) < BELOW:
            raise DataError(f"scene {scene.name}: {scene.files['sharp']} and {scene.files['sharp_right']} show "
                            "different scenes; the views at F/20 coincide. Put back the one that was replaced")
        # The manifest knows one source a frame; that of the other half of the truth goes to the tags.
        scene.tags["sharp_right_sha256"] = file_hash(scene.files["sharp_right"])
        sharp = read.pop("sharp").astype(np.uint16) + read.pop("sharp_right")
        return {**read, "sharp": sharp}


def _view(folder: Path, name: str) -> Path:
    """Return the file of one view, `l.png` or `r.png`."""
    files = list_files(folder, (".png", ".tif", ".tiff")) if folder.is_dir() else []
    found = [path for path in files if path.stem == name]
    if len(found) != 1:
        raise DataError(f"{folder}: expected one file {name}.png, found "
                        f"{', '.join(path.name for path in found) or 'none'}"
                        + ("; keep one" if found else ". Copy the missing file, or remove the whole distance"))
    return found[0]
