"""Finding and matching the files of the views by their names."""
import re
from pathlib import Path

from k3dn_plugin.data.images import IMAGE_SUFFIXES
from k3dn_plugin.errors import DataError

_VIEW_ENDING = re.compile(r"[_-](l|left|r|right|c|center|centre|gt|target|sharp)$", re.IGNORECASE)
_VIEW_OF_ENDING = {"l": "left", "r": "right", "c": "center", "g": "sharp", "t": "sharp", "s": "sharp"}


def list_view(folder: Path, view: str) -> dict[str, Path]:
    """The images of one view's folder, by scene: the file name without suffix and view ending (`_L`).

    Raises:
        DataError: no such folder, no image in it, two files of one scene, or names of another view.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}, which should hold the {view} images")
    found = {}
    contrary = []
    for path in sorted(folder.iterdir()):
        # Hidden files are what systems leave behind in folders, such as ._NAME.png.
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        ending = _VIEW_ENDING.search(path.stem)
        scene = path.stem[:ending.start()] if ending else path.stem
        if ending and _VIEW_OF_ENDING[ending[1][0].lower()] != view:
            contrary.append(path)
        if scene in found:
            raise DataError(f"{folder}: {found[scene].name} and {path.name} are both the {view} image of "
                            f"scene {scene}; keep one")
        found[scene] = path
    if contrary:
        other = _VIEW_OF_ENDING[_VIEW_ENDING.search(contrary[0].stem)[1][0].lower()]
        raise DataError(f"{contrary[0]}: by its name a {other} image, in the folder of the {view} images "
                        f"({len(contrary)} of {len(found)} files there). Are the folders swapped? Put each "
                        "view into its own folder")
    if not found:
        raise DataError(f"{folder}: expected the {view} images ({', '.join(IMAGE_SUFFIXES)}), found none")
    return found


def match_views(views: dict[str, dict[str, Path]]) -> list[str]:
    """The scenes of several views' files, sorted, after checking that every view has all of them.

    Raises:
        DataError: names the first scene that a view misses, and how many there are.
    """
    scenes = sorted(set().union(*views.values()))
    for view, files in views.items():
        missing = [scene for scene in scenes if scene not in files]
        if missing:
            other, there = next((v, f[missing[0]]) for v, f in views.items() if missing[0] in f)
            folder = next(iter(files.values())).parent
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"scene {missing[0]}{more}: no {view} image in {folder} goes with the {other} "
                            f"image {there}. Add the missing file, or remove the scene from all folders")
    return scenes
