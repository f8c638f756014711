"""What the layouts of camera files share: shots anywhere below the source, read by `k3dn_plugin.data.raw`."""
from pathlib import Path
from typing import ClassVar

import numpy as np

from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, turned
from k3dn_plugin.data.preparation.pairs import SPLITS
from k3dn_plugin.data.raw.base import ViewReader, ViewSettings, load_readers
from k3dn_plugin.errors import DataError

NO_TRUTH = "no sharp images: this set can be restored, not trained on or scored"


class CameraFiles(Preparer):
    """Shots of some readers of `k3dn_plugin.data.raw`; scenes are called by their folders and names.

    Attributes:
        readers: names of the readers whose files are taken.
        settings: what the readers are told.
    """

    readers: ClassVar[tuple[str, ...]]
    settings: ClassVar[ViewSettings] = ViewSettings()
    bits = 16

    def find(self, source: Path) -> list[Split]:
        """Return one split, "all", or one for each of the folders train, val and test."""
        folders = {name: source / name for name in SPLITS if (source / name).is_dir()} or {"all": source}
        splits = [Split(name, scenes, notes=[NO_TRUTH]) for name, folder in folders.items()
                  if (scenes := self._scenes(folder))]
        if not splits:
            raise self.missing(source)
        return splits

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read the views of a scene; those of a turned phone are turned and tagged unless kept."""
        if bits != 16:
            raise DataError(f"--bits {bits}: views out of camera files have 16 bits; leave --bits out")
        reader, source = next((reader, source) for reader in self._known()
                              if (source := reader.source(scene.files["left"])) is not None)
        views = reader.read(source, self.settings)
        scene.tags.update(camera=views.metadata["camera"], clipped_share=round(views.clipped_share, 5))
        frames = {"left": views.left, "right": views.right, "center": views.center}
        return frames if keep_portrait else turned(scene, frames)

    def _known(self) -> list[ViewReader]:
        known = load_readers()
        return [known[name] for name in self.readers]

    def _scenes(self, folder: Path) -> list[SceneFiles]:
        found: dict[Path, SceneFiles] = {}
        for reader in self._known():
            for path in sorted(folder.rglob("*")):
                if path.name.startswith(".") or path.suffix.lower() not in reader.suffixes or not path.is_file():
                    continue
                source = reader.source(path)
                if source is None or source in found:
                    continue
                name = (source.parent.relative_to(folder) / reader.shot_name(source)).as_posix()
                found[source] = SceneFiles(name, self.view_files(source))
        names = [scene.name for scene in found.values()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            both = [str(source) for source, scene in found.items() if scene.name == twice]
            raise DataError(f"{' and '.join(both)} are both scene {twice}; keep one, or rename it")
        return sorted(found.values(), key=lambda scene: scene.name)

    def view_files(self, source: Path) -> dict[str, Path]:
        """Return the file that each view is recorded with."""
        return dict.fromkeys(("left", "right", "center"), source)
