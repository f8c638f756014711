"""One's own pairs: folders `left` and `right`, with or without `center` and `sharp`."""
from pathlib import Path

from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split
from k3dn_plugin.data.preparation.files import list_view, match_views
from k3dn_plugin.registry import PREPARERS

SPLITS = ("train", "val", "test")


@PREPARERS.register_module()
class Pairs(Preparer):
    """Files of one scene have one name in all folders, view endings (`_L`, `_right`, ...) aside."""

    name = "pairs"
    title = "your own dual-pixel pairs"
    tree = ("  SOURCE/left/NAME.png      left views       (or NAME_L.png)\n"
            "  SOURCE/right/NAME.png     right views      (or NAME_R.png)\n"
            "  SOURCE/center/NAME.png    combined views   (the folder may be missing)\n"
            "  SOURCE/sharp/NAME.png     all-in-focus     (may be missing)\n"
            "or the same below SOURCE/train, SOURCE/val, SOURCE/test")
    facts = {"source": "your own"}

    def find(self, source: Path) -> list[Split]:
        """Return one split, "all", or those of the folders train, val and test."""
        folders = {name: source / name for name in SPLITS if (source / name).is_dir()}
        if (source / "left").is_dir() or (source / "right").is_dir():
            folders = {"all": source}
        if not folders:
            raise self.missing(source)
        return [self._split(name, folder) for name, folder in folders.items()]

    def _split(self, name: str, folder: Path) -> Split:
        views = ["left", "right", *(v for v in ("center", "sharp") if (folder / v).is_dir())]
        files = {view: list_view(folder / view, view) for view in views}
        scenes = [SceneFiles(scene, {view: files[view][scene] for view in views})
                  for scene in match_views(files)]
        blind = ["no sharp images: this set can be restored, not trained on or scored"]
        return Split(name, scenes, notes=[] if "sharp" in views else blind)
