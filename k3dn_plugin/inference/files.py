"""Restoring one's own pairs from image files: what `k3dn restore` does."""
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from k3dn_plugin.data.disparity_check import LEAST_TILES, tile_shifts
from k3dn_plugin.data.image_metadata import ImageMetadata, profile_fits, read_metadata
from k3dn_plugin.data.images import IMAGE_SUFFIXES, apparent_full_scale, read_image, to_float, write_image
from k3dn_plugin.data.listing import list_files, named_view, scenes_by_name, stem, view_ending
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import storage_error, user_path
from k3dn_plugin.inference.arrays import strips
from k3dn_plugin.inference.frames import FrameRestorer, Progress, RestoredFrame, mixed
from k3dn_plugin.layers.views import mean_of_views

CLEAR = 0.3      # pixels; a measured shift is good to about a third of a pixel
SELDOM = 0.02    # share of a frame's tiles that may seem shifted where nothing is out of focus


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair; `center` may be None."""

    left: Path
    right: Path
    center: Path | None
    out: Path

    @property
    def inputs(self) -> list[Path]:
        """The files of the views."""
        return [path for path in (self.left, self.right, self.center) if path is not None]


@dataclass(frozen=True)
class Pair:
    """A pair as a network takes it.

    Attributes:
        lq: (1, 6, H, W) float32 in [0, 1]. center: (1, 3, H, W) or None.
        bits: 8 or 16, of the files. colour: whether they have three channels.
        disparity_axis: along which the views are shifted, where the files say so ("x" or "y").
        quarter_turns: counter-clockwise, that put the result upright; the views lie as on the sensor.
        name: of the scene, by which a restorer may find a map of it.
        full_scale: the number of the files that stands for white.
        metadata: of the center view where one was captured and says anything, else of the left one; the result gets it.
        notes: what looks wrong about the files and may be meant.
    """

    lq: torch.Tensor
    center: torch.Tensor | None
    bits: int
    colour: bool
    disparity_axis: str | None = None
    quarter_turns: int = 0
    name: str = ""
    full_scale: int | None = None
    metadata: ImageMetadata = ImageMetadata()
    notes: tuple[str, ...] = ()


class FoundPairs(NamedTuple):
    """The pairs of two folders, and an error for each file that has no partner."""

    pairs: list[PairFiles]
    faults: list[DataError]


def find_pairs(left: str | Path, right: str | Path, out: str | Path, center: str | Path | None = None) -> FoundPairs:
    """Return the pairs that two files, or two folders, hold.

    In folders, files belong together if their names are equal, or equal up to the ending `_L`, `_R`, `_left`, ...

    Raises:
        DataError: a file or folder is missing or empty, no file has a partner, or left and right are one.
        OptionError: a file stands where a folder is needed, or the result would overwrite an input.
    """
    given = {view: user_path(path) for view, path in (("left", left), ("right", right), ("center", center)) if path}
    out = user_path(out)
    try:
        for view, path in given.items():
            if not path.exists():
                raise DataError(f"--{view} {path}: no such file or folder")
        kinds = {view: path.is_dir() for view, path in given.items()}
        same = os.path.samefile(given["left"], given["right"])
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if len(set(kinds.values())) > 1:
        raise OptionError("give files for all views, or folders for all: "
                          + ", ".join(f"--{v} is a {'folder' if d else 'file'}" for v, d in kinds.items()))
    if same:
        raise DataError(f"--left and --right are one and the same: {given['left']}. A dual-pixel pair has two views; "
                        "give the right view's own")
    if not kinds["left"]:
        target = out if out.suffix and not out.is_dir() else out / f"{bare_name(given['left'])}.png"
        found = FoundPairs([PairFiles(given["left"], given["right"], given.get("center"), target)], [])
    else:
        if out.suffix and not out.is_dir():
            raise OptionError(f"-o {out}: --left and --right are folders, so give a folder for the results")
        found = _folder_pairs(given, out)
    check_not_inputs((pair.out for pair in found.pairs), (path for pair in found.pairs for path in pair.inputs))
    return found


def _folder_pairs(given: Mapping[str, Path], out: Path) -> FoundPairs:
    listed = {view: list_files(folder) for view, folder in given.items()}
    for view, files in listed.items():
        if not files:
            raise DataError(f"{given[view]} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    names = [sorted(map(stem, files)) for files in listed.values()]
    if names.count(names[0]) == len(names) and len(set(names[0])) == len(names[0]):
        # Where all folders have the same names, an ending is a part of them.
        found = {view: {stem(path): path for path in files} for view, files in listed.items()}
    else:
        found = {view: scenes_by_name(files, view) for view, files in listed.items()}
    faults: dict[str, DataError] = {}
    for files in found.values():
        for other, others in found.items():
            for name in sorted(set(files) - set(others)):
                faults.setdefault(name, DataError(
                    f"{files[name]} has no {other} view in {given[other]}: expected a file named {name} there, with or "
                    "without an ending (_L, _R)"))
    pairs = [PairFiles(found["left"][n], found["right"][n], found.get("center", {}).get(n), out / f"{n}.png")
             for n in sorted(found["left"]) if n not in faults]
    if not pairs:
        raise next(iter(faults.values()))
    return FoundPairs(pairs, [faults[name] for name in sorted(faults)])


def bare_name(path: str | Path) -> str:
    """Return the file's name without suffix and without the ending that says which view it is."""
    return view_ending(stem(path))[0]


def check_not_inputs(results: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `OptionError` where a result would overwrite what it is made of."""
    taken = set(map(os.path.realpath, inputs))
    for path in results:
        if os.path.realpath(path) in taken:
            raise OptionError(f"-o: {path} would be written, and is one of the inputs; choose another name")


def check_writable(path: Path) -> None:
    """Raise `StorageError` where `path` cannot be written: better known before restoring than after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise storage_error(path, error) from error
    if is_folder:
        raise OptionError(f"-o {path}: a folder of that name lies there; name a file")


def check_format(path: Path, bits: int) -> None:
    """Raise `OptionError` where the file format of `path` cannot hold the result."""
    lossless = (".png", ".tif", ".tiff")
    if path.suffix.lower() not in (lossless if bits == 16 else IMAGE_SUFFIXES):
        raise OptionError(f"-o {path}: {path.suffix} cannot hold a {bits}-bit result; name it *.png"
                          + (", or ask for --bits 8" if bits == 16 else ""))


def read_pair(files: PairFiles, *, full_scale: int | None = None) -> Pair:
    """Read a pair.

    Args:
        full_scale: the number that stands for white, where 16-bit files hold fewer bits (4095 for 12).

    Raises:
        DataError: a file is damaged, holds numbers above `full_scale`, or the views differ in size, bit depth or number
            of channels.
    """
    paths = {"left": files.left, "right": files.right, **({"center": files.center} if files.center else {})}
    images = {view: read_image(path, gray=True) for view, path in paths.items()}
    first = images["left"]
    for view, image in images.items():
        what = _difference(first, image)
        if what:
            raise DataError(f"the views differ in {what[0]}: {files.left} has {what[1]}, {paths[view]} has "
                            f"{what[2]}. Both must come from one shot, converted alike")
    if full_scale is not None and first.dtype != np.uint16:
        raise DataError(f"{files.left}: --full-scale is for files of 16 bits, these have 8; leave it out")
    scale = full_scale or np.iinfo(first.dtype).max
    largest = max(int(image.max()) for image in images.values())
    if largest > scale:
        raise DataError(f"{files.left}: the views hold the number {largest}, above --full-scale {scale}. Give the true "
                        "one, or leave it out")
    seeming = apparent_full_scale(largest) if full_scale is None and first.dtype == np.uint16 and largest else None
    notes = _names_that_disagree(files)
    if seeming is not None:
        notes.append(f"no number of {files.left} and its other views exceeds {seeming}: are they numbers of "
                     f"{seeming.bit_length()} bits? If so, give --full-scale {seeming}")
    tensors = {view: as_tensor(image, scale) for view, image in images.items()}
    return Pair(lq=torch.cat([tensors["left"], tensors["right"]], 1), center=tensors.get("center"),
                bits=first.dtype.itemsize * 8, colour=first.shape[2] == 3, name=bare_name(files.left),
                full_scale=full_scale, notes=tuple(notes),
                metadata=(files.center and read_metadata(files.center)) or read_metadata(files.left))


def _names_that_disagree(files: PairFiles) -> list[str]:
    """Return a line for views that are exchanged, or of two shots, if one may go by the files' names."""
    left, right = (view_ending(stem(path)) for path in (files.left, files.right))
    if named_view(stem(files.left)) == "right" or named_view(stem(files.right)) == "left":
        return [f"{files.left} is taken as the left view and {files.right} as the right one; by their names they are "
                "the other way round"]
    if (left[1], right[1]) == ("left", "right") and left[0] != right[0]:
        return [f"{files.left} and {files.right} are taken as one shot; by their names they are of two, {left[0]} and "
                f"{right[0]}"]
    return []


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[str, str, str] | None:
    """Return (what, of one, of the other) for the first way in which two images differ, or None."""
    ones, others = _words(one), _words(other)
    return next(((what, ones[what], others[what]) for what in ones if ones[what] != others[what]), None)


def _words(image: np.ndarray) -> dict[str, str]:
    """Return what is to agree between the views of a pair."""
    rows, columns, channels = image.shape
    return {"size": f"{columns} x {rows} pixels", "bit depth": f"{image.dtype.itemsize * 8} bit",
            "channels": f"{channels} channel{'s' * (channels > 1)}"}


def as_tensor(image: np.ndarray, scale: float) -> torch.Tensor:
    """Return (H, W, 3) or (H, W, 1) integers as (1, 3, H, W) float32 in [0, 1]; one channel serves as all three."""
    planes = torch.as_tensor(np.ascontiguousarray(to_float(image, full_scale=scale).transpose(2, 0, 1)))
    return planes.expand(3, -1, -1)[None]


def restore_pair(run: FrameRestorer, pair: Pair, *, disparity_axis: str | None = "x", strength: float = 1.0,
                 progress: Progress | None = None) -> RestoredFrame:
    """Return the restored frame of a pair: a `RestoredFrame` with an image (1, 3, H, W), gray where the pair is.

    Args:
        run: a `FrameRestorer`.
        disparity_axis: None or "x"; "y" for frames taken with the camera turned, whose views are shifted
            along the columns. They are turned by a quarter counter-clockwise, as DPDNet and IFAN do, and the
            result back.
        strength: share of the restored picture in the result; the rest is the center view (see `mixed`).
        progress: called as `progress(tiles done, tiles)` after each tile.

    Raises:
        OptionError: as `FrameRestorer` and `mixed`.
    """
    maps, lq, center = run.maps_of({"name": pair.name}), pair.lq, pair.center
    turned = disparity_axis not in (None, "x")
    if turned:
        maps = {name: found.rot90(1, (-2, -1)) for name, found in maps.items()}
        lq, center = lq.rot90(1, (-2, -1)), None if center is None else center.rot90(1, (-2, -1))
    frame = run(lq, center, maps, progress=progress)
    image = frame.image.rot90(-1, (-2, -1)) if turned else frame.image
    if not pair.colour:
        image = image.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return replace(frame, image=mixed(image, center_of(pair), strength) if strength != 1 else image)


def missing_disparity(pair: Pair) -> str:
    """Return, as one line, that a pair has no disparity to deblur by; nothing where it has one, or none can tell."""
    if bool((pair.lq[:, :3] == pair.lq[:, 3:]).all()):
        return "left and right hold the same pixels, so there is no disparity to deblur by"
    left, right = (view.permute(1, 2, 0).numpy() for view in (pair.lq[0, :3], pair.lq[0, 3:]))
    side = min(left.shape[:2])
    tile = 256 if side > 2000 else 128 if side >= 400 else 64
    shifts = np.array([[x, y] for _, _, x, y in tile_shifts(left, right, tile=tile)])
    if len(shifts) < LEAST_TILES:
        return ""   # too little texture to tell
    moved = np.abs(shifts).max(1) >= CLEAR
    if moved.mean() > SELDOM:
        return ""
    return (f"left and right show no disparity ({len(shifts)} tiles, median {np.median(shifts[:, 0]):+.2f} px along "
            "the columns): all is in focus, or these are no dual-pixel views; little will change")


def notes_on(pair: Pair, name: object, disparity_axis: str | None) -> list[str]:
    """Return what looks wrong about a pair and may be meant, a line each.

    Args:
        name: of the pair's file or files.
        disparity_axis: what the user says of it, or None.
    """
    found = list(pair.notes)
    height, width = pair.lq.shape[-2:]
    if disparity_axis is None and pair.disparity_axis is None and height > width:
        found.append(f"{name}: higher than wide. If the camera was turned, its views are shifted up and down: say so, "
                     "on the command line by --disparity-axis y (x says that they are not)")
    if None not in (disparity_axis, pair.disparity_axis) and disparity_axis != pair.disparity_axis:
        found.append(f"{name}: its views lie as on the sensor, however the camera was held, and are shifted along "
                     f"{pair.disparity_axis}: that is taken, in place of the {disparity_axis} that was asked for")
    profile = pair.metadata.profile
    if profile and not profile_fits(profile, 3 if pair.colour else 1):
        found.append(f"{name}: the color profile is for {profile[16:20].decode('latin-1').strip()} pixels, the result "
                     f"has {'RGB' if pair.colour else 'gray'} ones: it goes without profile, and may look other")
    missing = missing_disparity(pair)
    return [*found, f"{name}: {missing}"] if missing else found


def center_of(pair: Pair) -> torch.Tensor:
    """Return what a pair looks like before it is restored, (1, 3, H, W): the captured center view, else the mean."""
    return mean_of_views(pair.lq) if pair.center is None else pair.center


def write_restored(path: Path, image: torch.Tensor, *, bits: int, colour: bool = True, full_scale: int | None = None,
                   metadata: ImageMetadata | None = None) -> None:
    """Write (1, 3, H, W) in [0, 1], clamped and rounded to 8 or 16 bits.

    Args:
        full_scale: the number that stands for 1 in a file of 16 bits.
        metadata: color profile and orientation of the file.
    """
    scale = full_scale if full_scale and bits == 16 else 2 ** bits - 1
    height, width = image.shape[-2:]
    array = np.empty((height, width, 3) if colour else (height, width), np.uint16 if bits == 16 else np.uint8)
    for rows, part in strips(image):
        numbers = np.round(part * scale)
        array[rows] = numbers if colour else numbers.mean(-1).round()
    write_image(path, array, metadata)
