r"""Which pictures a folder holds, which scene each shows and which view it is by its name.

All commands list folders by these functions, so that they agree on what counts: hidden files do not (systems leave
`._NAME.png` behind), letters composed of two characters are the letters of one (macOS writes the former), and bytes
that are no UTF-8 are shown as `\xe9`.
"""
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from k3dn_plugin.data.images import IMAGE_SUFFIXES
from k3dn_plugin.errors import DataError

ENDINGS = {"left": ("l", "left"), "right": ("r", "right"), "center": ("c", "b", "center", "centre"),
           "sharp": ("gt", "target", "sharp")}
_VIEW_OF = {ending: view for view, endings in ENDINGS.items() for ending in endings}
_ENDING = re.compile(rf"[_-]({'|'.join(_VIEW_OF)})$", re.IGNORECASE)


def list_files(folder: str | os.PathLike[str], suffixes: Sequence[str] = IMAGE_SUFFIXES, *,
               below: bool = False) -> list[Path]:
    """Return the visible files of a folder that have one of the suffixes, sorted.

    Args:
        folder: it is listed itself, and with `below` its visible folders too.
        suffixes: in lower case, with their dot.

    Raises:
        DataError: the folder is not there or may not be read.
    """
    folder, found = Path(folder), []
    pending = [folder]
    while pending:
        place = pending.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        # Links to folders could lead round in a circle.
                        pending += [Path(entry.path)] if below and not entry.is_symlink() else []
                    elif os.path.splitext(entry.name)[1].lower() in suffixes:
                        found.append(Path(entry.path))
        except OSError as error:
            raise DataError(f"{place}: expected a folder with files {', '.join(suffixes)}; it cannot be read "
                            f"({error.strerror})") from None
    return sorted(found)


def stem(path: str | os.PathLike[str]) -> str:
    """Return a file's name without suffix, its letters composed, as text that any file can hold."""
    name = os.path.splitext(os.path.basename(os.fspath(path)))[0]
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def view_ending(name: str) -> tuple[str, str | None]:
    """Return a file's stem without the ending that says which view it is (`_L`, `-right`, `_gt`), and that view."""
    found = _ENDING.search(name)
    if found is None or not found.start():
        return name, None
    return name[:found.start()], _VIEW_OF[found[1].lower()]


def named_view(name: str) -> str | None:
    """Return which view a file is by its stem: by the ending, or by all of it where it is a word (`left`)."""
    return view_ending(name)[1] or (_VIEW_OF.get(name.lower()) if len(name) > 1 else None)


def scenes_by_name(paths: Iterable[Path], view: str) -> dict[str, Path]:
    """Return the files of one view's folder by scene: the stem, without the view's ending where most files have it.

    A letter at the end of a few names (`shot_a`, `shot_b`, `shot_c`) is a part of them.

    Raises:
        DataError: two files are of one scene, or most are of another view by their names.
    """
    paths = list(paths)
    views = {path: view_ending(stem(path))[1] for path in paths}
    counts = {each: sum(found == each for found in views.values()) for each in ENDINGS}
    other = max(counts, key=counts.__getitem__)
    if other != view and 2 * counts[other] > len(paths):
        first = next(path for path in paths if views[path] == other)
        raise DataError(f"{first}: by its name a {other} image, in the folder of the {view} images "
                        f"({counts[other]} of {len(paths)} files there). Are the folders swapped? Put each "
                        "view into its own folder")
    shortened = 2 * counts[view] > len(paths)
    found: dict[str, Path] = {}
    for path in paths:
        scene = view_ending(stem(path))[0] if shortened and views[path] == view else stem(path)
        if scene in found:
            raise DataError(f"{path.parent}: {found[scene].name} and {path.name} are both the {view} image of "
                            f"scene {scene}; keep one")
        found[scene] = path
    return found


def files_with_ending(folder: str | os.PathLike[str], ending: str,
                      suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Return the files `NAME<ending>.*` of a folder by NAME, for layouts that hold all views in one folder.

    Raises:
        DataError: the folder cannot be read, or two files have one NAME.
    """
    found: dict[str, Path] = {}
    for path in list_files(folder, suffixes):
        if not stem(path).endswith(ending):
            continue
        scene = stem(path).removesuffix(ending)
        if scene in found:
            raise DataError(f"{folder}: {found[scene].name} and {path.name} are both the {ending.strip('_')} image "
                            f"of scene {scene}; keep one")
        found[scene] = path
    return found
