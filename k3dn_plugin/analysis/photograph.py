"""One photograph, from the files that somebody drops to all that is shown of it: before, after, the disparity."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from k3dn_plugin.data.collage import color_of_radius
from k3dn_plugin.data.disparity_check import tile_shifts
from k3dn_plugin.data.listing import named_view, stem, view_ending
from k3dn_plugin.data.raw import is_camera_file
from k3dn_plugin.data.raw.base import Axis
from k3dn_plugin.errors import DataError, K3DNError, OptionError
from k3dn_plugin.evaluation.maps import predicted_map
from k3dn_plugin.inference.before_after import PAGE, reduced, turned, upright, write_page
from k3dn_plugin.inference.camera_files import find_shots, read_shot
from k3dn_plugin.inference.files import (
    Pair,
    PairFiles,
    center_of,
    notes_on,
    read_pair,
    restore_pair,
    write_restored,
)
from k3dn_plugin.inference.frames import Progress
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.zoo.load import LoadedRestorer

CAPTURES = (".pgm",)           # files of pairs that camera apps write; their reader knows which is which
QUAD_NAMES = {"lt", "rt", "lb", "rb"}
MAP_SIDE = 1024                # longest side of the frame whose map is predicted: it is only looked at
MEASURED_TILE = 64


@dataclass(frozen=True)
class PhotographSettings:
    """How a photograph is restored.

    Attributes:
        swap: exchange left and right.
        disparity_axis: "x", "y", or None for what the files say; raw files know theirs.
        strength: share of the restored picture in the result, 0 to 1.
        with_map: predict the disparity or defocus map too.
    """

    swap: bool = False
    disparity_axis: Axis | None = None
    strength: float = 1.0
    with_map: bool = True


@dataclass(frozen=True)
class RestoredPhotograph:
    """A restored photograph, as it is shown.

    Attributes:
        before, after: (h, w, 3) uint8, upright, at most 2560 pixels wide or high.
        file: the result in full, a 16-bit PNG. page: before and after as an HTML file.
        map: (h, w, 3) uint8, colors of the disparity; None where it was not asked for or cannot be told.
        map_title: what the map is.
        facts: one line on what was done. notes: lines on what looks wrong and may be meant.
    """

    before: np.ndarray
    after: np.ndarray
    file: Path
    page: Path
    map: np.ndarray | None
    map_title: str
    facts: str
    notes: tuple[str, ...]


def restore_photograph(files: Sequence[Path], loaded: LoadedRestorer, folder: Path,
                       settings: PhotographSettings | None = None,
                       progress: Progress | None = None) -> RestoredPhotograph:
    """Restore what somebody dropped: two views (and a center view), or the file or files of one camera shot.

    Args:
        files: all of the shot's, in one folder.
        loaded: the restorer.
        folder: for the results.
        progress: called as `progress(tiles done, tiles)`.

    Raises:
        DataError: the files are damaged, do not belong together, or are no dual-pixel shot.
        OptionError: the memory bound is too small.
        StorageError: the folder cannot be written.
    """
    settings = settings or PhotographSettings()
    pair, name, said = read_photograph(files, folder, swap=settings.swap, axis=settings.disparity_axis)
    axis = pair.disparity_axis or settings.disparity_axis or "x"
    notes = notes_on(pair, " and ".join(file.name for file in files), settings.disparity_axis)
    frame = restore_pair(loaded.frames, pair, disparity_axis=axis, strength=settings.strength, progress=progress)
    if not frame.same_as_whole:
        notes.append("the frame was restored in tiles, which changes this network's result a little")
    out = folder / f"{name}_restored.png"
    write_restored(out, frame.image.rot90(pair.quarter_turns, (-2, -1)), bits=16, colour=pair.colour,
                   metadata=pair.metadata)
    before, after = (
        reduced(upright(image, orientation=pair.metadata.orientation, quarter_turns=pair.quarter_turns), PAGE)
        for image in (center_of(pair), frame.image))
    height, width = pair.lq.shape[-2:]
    facts = {"read": said, "size": f"{width} x {height} pixels, {pair.bits} bit", "restored": frame.tiling,
             "weights": f"{loaded.name} ({type(loaded.restorer).__name__})"}
    if settings.strength != 1:
        facts["strength"] = f"{settings.strength:.0%} restored, the rest as it was"
    write_page(folder / f"{name}.html", before, after, title=f"{name}: before and after", facts=facts,
               profile=pair.metadata.profile)
    found, title = _map_or_why_not(loaded, pair, axis) if settings.with_map else (None, "")
    if found is not None:
        found = turned(found, orientation=pair.metadata.orientation, quarter_turns=pair.quarter_turns)
    elif title:
        notes.append(title)
    return RestoredPhotograph(before, after, out, folder / f"{name}.html", found, title, "; ".join(facts.values()),
                              tuple(notes))


def read_photograph(files: Sequence[Path], folder: Path, *, swap: bool = False,
                    axis: Axis | None = None) -> tuple[Pair, str, str]:
    """Return the pair in some files, the photograph's name, and in words which file was taken for what.

    Raises:
        DataError: as `restore_photograph`.
    """
    if not files:
        raise DataError("nothing to restore: drop the left and the right view, or one raw file")
    if len(files) > 1 and any(map(is_camera_file, files)):
        raise DataError(f"found {_names_of(files)}: expected one raw file at a time, without others; it holds both "
                        "views")
    by_app = all(file.suffix.lower() in CAPTURES for file in files)
    endings = {stem(file).lower().replace("-", "_").rpartition("_")[2] for file in files}
    quad = len(files) == 4 and endings == QUAD_NAMES
    if len(files) == 1 or by_app or quad:
        if len(files) == 1 and not (is_camera_file(files[0]) or by_app):
            raise DataError(f"{files[0].name}: one file, and no raw file that holds both views (.CR2, .CR3, .DNG); "
                            "drop the left and the right view together")
        found = find_shots(files, folder)
        if found.faults or len(found.shots) != 1:
            raise DataError("; ".join(map(str, found.faults)) or f"found {_names_of(files)}: expected the files of one "
                            "shot; drop one at a time")
        shot = found.shots[0]
        return read_shot(shot, swap=swap, axis=axis), shot.reader.shot_name(shot.source), shot.reader.title
    views = _sorted_views(files)
    if swap:
        views["left"], views["right"] = views["right"], views["left"]
    name = view_ending(stem(views["left"]))[0]
    pair = read_pair(PairFiles(views["left"], views["right"], views.get("center"), folder / f"{name}.png"))
    return pair, name, ", ".join(f"{view}: {file.name}" for view, file in views.items())


def _sorted_views(files: Sequence[Path]) -> dict[str, Path]:
    """Return two or three files by view: as their names say, or by the names' order where none says anything."""
    if len(files) not in (2, 3):
        raise DataError(f"expected two views (and, if there is one, the center view), or one raw file; found "
                        f"{len(files)} files")
    by_name = {named_view(stem(file)): file for file in files}
    wanted = ("left", "right", "center")[:len(files)]
    if set(by_name) == set(wanted):
        return {view: by_name[view] for view in wanted}
    # A letter b may only count: shot_a, shot_b.
    said = [file for file in files if named_view(stem(file)) and not stem(file).lower().endswith(("_b", "-b"))]
    if len(files) == 2 and not said:
        return dict(zip(wanted, sorted(files, key=lambda file: file.name), strict=True))
    endings = "_L and _R (or _left, _right)" if len(files) == 2 else "_L, _R and _C (or _left, _right, _center)"
    raise DataError(f"found {_names_of(files)}: expected names that end in {endings}, one each; rename them")


def _names_of(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)


def _map_or_why_not(loaded: LoadedRestorer, pair: Pair, axis: str) -> tuple[np.ndarray | None, str]:
    """Return as `disparity_picture`, also where it fails: the picture is restored all the same."""
    try:
        return disparity_picture(loaded, pair, axis)
    except (K3DNError, MemoryError, RuntimeError, cv2.error) as error:   # torch's and OpenCV's of memory among them
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return None, f"there is no disparity map, because making it failed ({why})"


def disparity_picture(loaded: LoadedRestorer, pair: Pair, axis: str) -> tuple[np.ndarray | None, str]:
    """Return what a restorer makes of the disparity as a picture (h, w, 3) uint8, and its title.

    Where a restorer predicts no map, the shift between the views is measured in tiles; None where that cannot be told.
    """
    factor = max(math.ceil(max(pair.lq.shape[-2:]) / MAP_SIDE), 1)
    small = torch.nn.functional.avg_pool2d(pair.lq, factor) if factor > 1 else pair.lq
    turns = int(axis == "y")   # networks know views that are shifted along the columns
    lq = small.rot90(turns, (-2, -1))
    prepared = {"lq": lq[0], "center": mean_of_views(lq[0]), "name": pair.name}
    try:
        kind, found = predicted_map(loaded.restorer, prepared, device=loaded.device)
        return _colored(found[0].rot90(-turns).numpy()), (
            f"{kind.replace('_', ' ')} as the network sees it: colors span its range, sign and scale are its own")
    except OptionError:
        return _measured(small, axis)


def _measured(lq: torch.Tensor, axis: str) -> tuple[np.ndarray | None, str]:
    left, right = (view.permute(1, 2, 0).numpy() for view in (lq[0, :3], lq[0, 3:]))
    tile = min(MEASURED_TILE, *left.shape[:2])
    shifts = tile_shifts(left, right, tile=tile)
    if not shifts:
        return None, "too little texture to measure the disparity"
    found = np.zeros(left.shape[:2], np.float32)
    for row, column, along_columns, along_rows in shifts:
        found[row:row + tile, column:column + tile] = along_columns if axis == "x" else along_rows
    return color_of_radius(found), ("measured shift of the right view in tiles: blue to the left, red to the right, "
                                    "white none or unknown")


def _colored(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()


def without_folder(said: Exception | str, *folders: Path) -> str:
    """Return an error's message or a note in one line, without the folders in which dropped files are kept."""
    text = str(said)
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return " ".join(text.split())
