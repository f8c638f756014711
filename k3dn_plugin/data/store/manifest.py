"""What a store says of itself: facts about the data set, and for every scene its frames.

The manifest is JSON inside the database, so it cannot part from the frames it describes. While a store is
being built, each scene's record is committed together with its frames; finishing joins the records.
"""
import hashlib
import json
from dataclasses import dataclass, field

import numpy as np

from k3dn_plugin.data.store.checks import DTYPES, MAPS, VIEWS, check_facts, check_scene
from k3dn_plugin.errors import DataError

__all__ = ["DEFAULT_FACTS", "DTYPES", "HASH_KEY", "MANIFEST_KEY", "MAPS", "SCENE_PREFIX", "VIEWS", "FrameRecord",
           "Manifest", "SceneRecord", "frame_key"]

FORMAT = "k3dn_plugin store"
VERSION = 1

MANIFEST_KEY = b"manifest"
HASH_KEY = b"manifest_sha256"  # of the finished manifest's bytes
SCENE_PREFIX = b"scene/"

# Facts that a preparer may leave out.
DEFAULT_FACTS = {
    "bit_depth": None,         # of the stored numbers' meaning: 8, 14, 16; None: that of their dtype
    "linear": False,           # linear light, or sRGB as cameras write it
    "black_level": 0,          # a number, or one a view; subtracted before dividing by full_scale
    "full_scale": None,        # a number, or one a view; None: the largest number of the dtype
    "disparity_axis": "x",     # along which the views are shifted
    "disparity_unit": "px, column in the right view minus column in the left",
    "defocus_unit": "px, signed blur radius: negative nearer than focus, positive beyond",
    "usual_shift": None,       # "positive" or "negative", where most content of the set lies on one side of focus
    "depth_unit": "metres",
    "single_image": False,     # one image stands for all views
    "licence": "",
    "source": "",
    "crop_sets": {},           # name -> {"size": [rows, columns], ...}; the origins stand with the scenes
}


def frame_key(name: str, view: str) -> bytes:
    """Return the database key of one view of a scene."""
    return f"frame/{name}/{view}".encode()


@dataclass(frozen=True)
class FrameRecord:
    """One stored frame: C-order numbers of `dtype`, (H, W, channels) or (H, W).

    A frame that stands in the store already is not stored again: `stored_as` then names the key.
    """

    shape: tuple[int, ...]
    dtype: str
    sha256: str
    source: str | None = None
    source_sha256: str | None = None
    stored_as: str | None = None

    @property
    def disk_dtype(self) -> np.dtype:
        """The dtype as stored: little-endian on any machine."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def nbytes(self) -> int:
        """Length of the stored value."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class SceneRecord:
    """One scene: its frames by view, tags (`place: indoor`, ...) and crop origins by crop set."""

    name: str
    views: dict[str, FrameRecord]
    tags: dict = field(default_factory=dict)
    crops: dict[str, list] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the frames."""
        rows, columns = next(iter(self.views.values())).shape[:2]
        return rows, columns

    def as_json(self) -> str:
        """Return the record as it is stored."""
        views = {view: {k: v for k, v in vars(frame).items() if v is not None}
                 for view, frame in self.views.items()}
        return json.dumps({"name": self.name, "views": views, "tags": self.tags, "crops": self.crops},
                          sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes | dict) -> "SceneRecord":
        """Return the inverse of `as_json`."""
        data = json.loads(text) if isinstance(text, (str, bytes)) else text
        views = {view: FrameRecord(**{**frame, "shape": tuple(frame["shape"])})
                 for view, frame in data["views"].items()}
        return cls(data["name"], views, data["tags"], data["crops"])


@dataclass(frozen=True)
class Manifest:
    """Everything a store says of itself. `scenes` are sorted by name."""

    dataset: str
    facts: dict
    scenes: dict[str, SceneRecord] = field(default_factory=dict)
    complete: bool = False

    def as_json(self) -> bytes:
        """Return the manifest as it is stored."""
        return json.dumps({
            "format": FORMAT, "version": VERSION, "dataset": self.dataset, "facts": self.facts,
            "complete": self.complete,
            "scenes": [json.loads(scene.as_json()) for scene in self.scenes.values()]},
            sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes | memoryview, path: object) -> "Manifest":
        """Read a stored manifest.

        Raises:
            DataError: it is damaged, or of another format or version.
        """
        try:
            data = json.loads(bytes(text))
            found, version = data.get("format"), data.get("version")
        except (ValueError, AttributeError, RecursionError):
            raise _damaged(path, "it cannot be read") from None
        if found != FORMAT:
            raise DataError(f"{path}: expected a {FORMAT!r}, its manifest says {found!r}")
        if version != VERSION:
            raise DataError(f"{path}: store format {version}, this k3dn_plugin reads format {VERSION}. "
                            "Prepare the data again with this version (k3dn prepare --help), or use the version "
                            "that wrote it")
        scenes: dict[str, SceneRecord] = {}
        try:
            check_facts(data["facts"])
            if not isinstance(data["complete"], bool) or not isinstance(data["dataset"], str):
                raise ValueError("`complete` and `dataset` are not what they should be")
            for scene in data["scenes"]:
                check_scene(scene, data["facts"].get("crop_sets", {}))
                if scene["name"] in scenes:
                    raise ValueError(f"two scenes are called {scene['name']!r}")
                scenes[scene["name"]] = SceneRecord.from_json(scene)
            if data["complete"] and not scenes:
                raise ValueError("it lists no scene")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _damaged(path, str(error) if isinstance(error, ValueError) else repr(error)) from None
        return cls(data["dataset"], {**DEFAULT_FACTS, **data["facts"]}, scenes, data["complete"])

    def hash(self) -> str:
        """SHA-256 of the content: facts, scenes and the hashes of all frames, not where they came from."""
        content = [self.dataset, self.facts]
        for scene in self.scenes.values():
            frames = {v: [f.shape, f.dtype, f.sha256] for v, f in scene.views.items()}
            content.append([scene.name, frames, scene.tags, scene.crops])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _damaged(path: object, what: str) -> DataError:
    return DataError(f"{path}: its manifest is damaged: {what}. Copy the folder again, or delete it and prepare it "
                     "again (k3dn prepare --help)")
