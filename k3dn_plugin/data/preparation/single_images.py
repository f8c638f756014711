"""Defocus sets of single images: RealDOF, LFDOF and CUHK. One image stands for both views and the center."""
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split
from k3dn_plugin.data.preparation.files import list_view, match_views
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import PREPARERS

NOTE = "single images: left, right and center view are one picture, without disparity"


def one_image(name: str, path: Path, sharp: Path | None = None, tags: dict | None = None) -> SceneFiles:
    """Return a scene whose views are all the file `path`."""
    files = {"left": path, "right": path, "center": path}
    return SceneFiles(name, files if sharp is None else {**files, "sharp": sharp}, dict(tags or {}))


def which(names: Collection[str], official: Collection[str]) -> list[str]:
    """Return notes on a copy whose scenes should be the `official` ones."""
    absent = [name for name in official if name not in names]
    strange = [name for name in names if name not in official]
    notes = [f"incomplete: {len(names) - len(strange)} of the {len(official)} official scenes; missing: "
             f"{_some(absent)}. With the rest of the files, delete the store and prepare it again"] if absent else []
    return notes + ([f"not among the {len(official)} official scenes: {_some(strange)}"] if strange else [])


def _some(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def how_many(found: int, official: int, what: str) -> list[str]:
    """Return notes on a copy that is not the published one's size."""
    if found == official:
        return []
    return [f"{'incomplete' if found < official else 'more than published'}: {found} of the {official} official "
            f"{what}"]


class SingleImages(Preparer):
    """What the sets of single images share: without disparity there is no axis to turn portrait frames to."""

    facts = {"single_image": True, "linear": False,
             "orientation": "as published; without disparity there is no axis to turn to"}

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read the images as they are."""
        return super().load(scene, bits, True)


@PREPARERS.register_module()
class RealDOF(SingleImages):
    """RealDOF of IFAN: 50 pairs of one camera position."""

    name = "realdof"
    title = "RealDOF (IFAN): 50 pairs of single images, test only"
    tree = ("  SOURCE/source/01.png ... 50.png    defocused\n"
            "  SOURCE/target/01.png ... 50.png    all in focus")
    facts = {**SingleImages.facts, "source": "Lee et al., IFAN, CVPR 2021", "licence": "see its project page",
             "official_scenes": 50}

    def find(self, source: Path) -> list[Split]:
        """Return one split, the test."""
        root = next((r for r in (source, source / "RealDOF") if (r / "source").is_dir()), None)
        if root is None:
            raise self.missing(source)
        files = {"center": list_view(root / "source", "center"), "sharp": list_view(root / "target", "sharp")}
        names = match_views(files)
        scenes = [one_image(name, files["center"][name], files["sharp"][name]) for name in names]
        return [Split("test", scenes, notes=[NOTE, *which(names, [f"{number:02d}" for number in range(1, 51)])])]


@PREPARERS.register_module()
class LFDOF(SingleImages):
    """LFDOF: several focus settings and apertures of each light-field scene share one truth."""

    name = "lfdof"
    title = "LFDOF (Ruan et al., TCI 2021): refocused light fields, 8 bits, 688 x 1008"
    tree = ("  SOURCE/{train,test}_data/input/SCENE/SCENE_apA_NN.png    defocused, several a scene\n"
            "  SOURCE/{train,test}_data/ground_truth/SCENE.png          all in focus")
    bits = 8
    size = (688, 1008)
    facts = {**SingleImages.facts, "source": "Ruan et al., AIFNet, IEEE TCI 2021",
             "licence": "see its project page"}
    official = {"train": (11261, 790), "test": (725, 50)}

    def find(self, source: Path) -> list[Split]:
        """Return the splits whose folders are there."""
        root = next((r for r in (source, source / "LFDOF")
                     if any((r / f"{split}_data").is_dir() for split in self.official)), None)
        if root is None:
            raise self.missing(source)
        splits = [self._split(split, root / f"{split}_data") for split in self.official
                  if (root / f"{split}_data").is_dir()]
        if len(splits) == 1:
            splits[0].notes.append(f"only the {splits[0].name} split is in {root}")
        shared = set.intersection(*({scene.tags["scene"] for scene in split.scenes} for split in splits)) \
            if len(splits) > 1 else set()
        if shared:
            raise DataError(f"{root}: scene {min(shared)} is in the training and in the test data; its images "
                            "share one truth, so scores would be of training data. Move it to one of them")
        return splits

    def _split(self, name: str, folder: Path) -> Split:
        truths = list_view(folder / "ground_truth", "sharp")
        inputs = folder / "input"
        places = sorted(p for p in inputs.iterdir() if p.is_dir()) if inputs.is_dir() else []
        if not places:
            raise DataError(f"{inputs}: expected one folder a scene with its defocused images; found none")
        scenes = []
        for place in places:
            if place.name not in truths:
                raise DataError(f"scene {place.name}: no truth {folder / 'ground_truth' / place.name}.png goes "
                                f"with its images in {place}. Add it, or remove the scene")
            for stem, path in list_view(place, "center").items():
                if not stem.startswith(f"{place.name}_"):
                    raise DataError(f"{path}: by its name not an image of scene {place.name}, in whose folder "
                                    "it lies; move it to its own scene")
                scenes.append(one_image(stem, path, truths[place.name], {"scene": place.name, **_setting(stem)}))
        alone = sorted(set(truths) - {place.name for place in places})
        if alone:
            raise DataError(f"scene {alone[0]}: {truths[alone[0]]} has no defocused images in {inputs / alone[0]} "
                            f"({len(alone)} such). Add them, or remove the truth")
        images, count = self.official[name]
        return Split(name, scenes, facts={"official_images": images, "official_scenes": count},
                     notes=[NOTE, *how_many(len(scenes), images, "images"),
                            *how_many(len(places), count, "scenes")])


def _setting(stem: str) -> dict[str, int]:
    """Return aperture and focus index of an image called `SCENE_apA_NN`, as tags."""
    found = re.fullmatch(r".*_ap(\d+)_(\d+)", stem)
    return {"aperture": int(found[1]), "focus": int(found[2])} if found else {}


@PREPARERS.register_module()
class CUHK(SingleImages):
    """CUHK's blur detection images, which have no sharp truth."""

    name = "cuhk"
    title = "CUHK blur detection: photographs from the web, no truth"
    tree = "  SOURCE/NAME.jpg    (flat; masks, if any, elsewhere)"
    facts = {**SingleImages.facts, "source": "Shi et al., Discriminative Blur Detection Features, CVPR 2014",
             "licence": "see its project page"}

    def find(self, source: Path) -> list[Split]:
        """Return one split, the test."""
        if not any(p.is_file() for p in source.iterdir()):
            raise self.missing(source)
        files = list_view(source, "center")
        return [Split("test", [one_image(name, path) for name, path in files.items()],
                      notes=[NOTE, "no sharp images: scores that need none, and pictures, are all there is"])]
