"""Finding and matching the files of the views by their names."""
from collections.abc import Mapping
from pathlib import Path

from k3dn_plugin.data.images import IMAGE_SUFFIXES
from k3dn_plugin.data.listing import list_files, scenes_by_name
from k3dn_plugin.errors import DataError


def list_view(folder: Path, view: str) -> dict[str, Path]:
    """Return the images of one view's folder by scene: the file name without suffix and view ending (`_L`).

    Raises:
        DataError: no such folder, no image in it, two files of one scene, or names of another view.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}, which should hold the {view} images")
    found = scenes_by_name(list_files(folder), view)
    if not found:
        raise DataError(f"{folder}: expected the {view} images ({', '.join(IMAGE_SUFFIXES)}), found none")
    return found


def match_views(views: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """Return the scenes of several views' files, sorted, after checking that every view has all of them.

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
