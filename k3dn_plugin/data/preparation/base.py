"""What a preparer is: it knows one layout of folders."""
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from k3dn_plugin.data.crop_sets import PatchFilter
from k3dn_plugin.data.images import read_image
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import PREPARERS, nearest


@dataclass
class SceneFiles:
    """One scene before it is read: its name in the store, the file of each view, and its tags."""

    name: str
    files: dict[str, Path]  # or `ParquetImage`, which stands where a path does
    tags: dict = field(default_factory=dict)


@dataclass
class Split:
    """The scenes that become one store, `<out>/<name>.lmdb`.

    `facts` go to the manifest; `notes` are shown to the user (what is incomplete or assumed).
    """

    name: str
    scenes: list[SceneFiles]
    facts: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Preparer(ABC):
    """One layout.

    Attributes:
        name: as on the command line, and of the data set in the manifest.
        title: one line for the tool's help.
        tree: the folders that it expects, for messages.
        bits: the depth that the files must have unless the user says otherwise; None takes that of the first.
        size: (rows, columns) of the published frames; others are reported, not refused. None where they vary.
        facts: of the manifest, what holds for every split.
        miniature: the files of a small copy, path below the source -> (scene, view). The tests write it and
            ask it the questions of every layout (`tests/data/test_preparers.py`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tree: ClassVar[str]
    bits: ClassVar[int | None] = None
    size: ClassVar[tuple[int, int] | None] = None
    facts: ClassVar[dict] = {}
    miniature: ClassVar[dict[str, tuple[str, str]]] = {}

    def crop_sets(self, split: str) -> dict[str, PatchFilter]:
        """Return the published patch filters of a split, by name; their origins are stored with each scene."""
        return {}

    @abstractmethod
    def find(self, source: Path) -> list[Split]:
        """Return the splits below `source`, every scene with its files; reads names only.

        Raises:
            DataError: the layout is not there, or views are missing, doubled or swapped.
        """

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read and check the frames of a scene; portrait frames are turned (and tagged) unless kept.

        Raises:
            DataError: a file is missing, damaged or of another depth; views differ in size or are the same.
        """
        images = {path: read_image(path, bits=bits, gray=True) for path in dict.fromkeys(scene.files.values())}
        frames = {view: images[path] for view, path in scene.files.items()}
        check_frames(scene, frames)
        return frames if keep_portrait else turned(scene, frames)

    def missing(self, source: Path) -> DataError:
        """Return the error for a source without this layout."""
        there = "no such folder" if not source.is_dir() else "it holds " + (
            ", ".join(sorted(p.name for p in source.iterdir())[:12]) or "nothing")
        return DataError(f"{source}: expected {self.title} here; {there}.\nThe layout is:\n{self.tree}")


def turned(scene: SceneFiles, frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return frames with their disparity along the columns: portrait ones turned counter-clockwise and tagged."""
    height, width = frames["left"].shape[:2]
    if height <= width:
        return frames
    scene.tags["rotated"] = 90
    return {view: np.rot90(frame) for view, frame in frames.items()}


def check_frames(scene: SceneFiles, frames: dict[str, np.ndarray]) -> None:
    """Raise `DataError` where the views of a scene cannot belong together."""
    reference = frames["left"].shape
    for view, frame in frames.items():
        if frame.shape != reference:
            raise DataError(f"scene {scene.name}: {scene.files[view]} is {_size(frame.shape)}, "
                            f"{scene.files['left']} is {_size(reference)}; all views of a scene must have "
                            "one size")
    # One file for both is meant so: a single image stands for the pair.
    if scene.files["left"] != scene.files["right"] and np.array_equal(frames["left"], frames["right"]):
        raise DataError(f"scene {scene.name}: {scene.files['left']} and {scene.files['right']} are the same "
                        "picture; expected the two dual-pixel views. One was copied over the other: restore "
                        "the original")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} pixels (rows x columns) of {shape[2]} channel{'s' * (shape[2] > 1)}"


def get_preparer(name: str) -> Preparer:
    """Return the preparer called `name`.

    Raises:
        DataError: there is none; the message lists the nearest.
    """
    if name not in PREPARERS:
        known = PREPARERS.names()
        raise DataError(f"no data set is called {name!r}. {nearest(name, known)} Known: {', '.join(known)}")
    return PREPARERS.get(name)()
