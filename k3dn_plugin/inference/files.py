"""Restores one's own pairs from image files: what `tools/restore.py` does."""
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from k3dn_plugin.data.images import IMAGE_SUFFIXES, read_image, write_image
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import storage_error

VIEW_ENDING = re.compile(r"[_-](l|r|c|left|right|center|b)$", re.IGNORECASE)


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair; `center` may be None."""

    left: Path
    right: Path
    center: Path | None
    out: Path


@dataclass(frozen=True)
class Pair:
    """A pair as a network takes it.

    Attributes:
        lq: (1, 6, H, W) float32 in [0, 1]. center: (1, 3, H, W) or None.
        bits: 8 or 16, of the files. colour: whether they have three channels.
        disparity_axis: along which the views are shifted, where the files say so ("x" or "y").
        quarter_turns: counter-clockwise, that put the result upright; the views lie as on the sensor.
        name: of the scene, by which a restorer may find a map of it.
    """

    lq: torch.Tensor
    center: torch.Tensor | None
    bits: int
    colour: bool
    disparity_axis: str | None = None
    quarter_turns: int = 0
    name: str = ""


def find_pairs(left, right, out, center=None) -> list[PairFiles]:
    """The pairs that two files, or two folders, hold.

    In folders, files belong together if their names are equal up to the ending `_L`, `_R`, `_left`, ...

    Raises:
        DataError: a file or folder is missing or empty, a file has no partner, or left and right are one.
        OptionError: a file stands where a folder is needed, or the result would overwrite an input.
    """
    left, right, out = Path(left), Path(right), Path(out)
    center = None if center is None else Path(center)
    given = {"left": left, "right": right, **({"center": center} if center else {})}
    for view, path in given.items():
        if not path.exists():
            raise DataError(f"--{view} {path}: no such file or folder")
    kinds = {view: path.is_dir() for view, path in given.items()}
    if len(set(kinds.values())) > 1:
        raise OptionError("give files for all views, or folders for all: "
                          + ", ".join(f"--{v} is a {'folder' if d else 'file'}" for v, d in kinds.items()))
    if os.path.samefile(left, right):
        raise DataError(f"--left and --right are one and the same: {left}. A dual-pixel pair has two views; "
                        "give the right view's own")
    if not kinds["left"]:
        target = out if out.suffix and not out.is_dir() else out / f"{bare_name(left)}.png"
        pairs = [PairFiles(left, right, center, target)]
    else:
        if out.suffix:
            raise OptionError(f"-o {out}: --left and --right are folders, so give a folder for the results")
        pairs = _folder_pairs(given, out)
    inputs = {path.resolve() for pair in pairs for path in (pair.left, pair.right, pair.center) if path}
    for pair in pairs:
        if pair.out.resolve() in inputs:
            raise OptionError(f"-o {pair.out} is one of the inputs; choose another name")
    return pairs


def _folder_pairs(given, out):
    found = {view: _images_by_name(folder) for view, folder in given.items()}
    for view, files in found.items():
        for other, others in found.items():
            without = sorted(set(files) - set(others))
            if without:
                more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
                raise DataError(f"{files[without[0]]} has no {other} view in {given[other]}{more}: expected "
                                f"a file named {without[0]} there, with or without an ending (_L, _R)")
    return [PairFiles(found["left"][n], found["right"][n], found.get("center", {}).get(n), out / f"{n}.png")
            for n in sorted(found["left"])]


def _images_by_name(folder):
    files = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        name = bare_name(path)
        if name in files:
            raise DataError(f"{folder} holds two files for {name!r}: {files[name].name} and {path.name}; "
                            "which is meant? Move one away")
        files[name] = path
    if not files:
        raise DataError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def bare_name(path) -> str:
    """The file's name without suffix and without the ending that says which view it is."""
    return VIEW_ENDING.sub("", path.stem) or path.stem


def check_writable(path):
    """Raise `StorageError` where `path` cannot be written: better known before restoring than after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise storage_error(path, error) from error
    if path.is_dir():
        raise OptionError(f"-o {path}: a folder of that name lies there; name a file")


def check_format(path, bits):
    """Raise `OptionError` where the file format of `path` cannot hold the result."""
    lossless = (".png", ".tif", ".tiff")
    if path.suffix.lower() not in (lossless if bits == 16 else IMAGE_SUFFIXES):
        raise OptionError(f"-o {path}: {path.suffix} cannot hold a {bits}-bit result; name it *.png"
                          + (", or ask for --bits 8" if bits == 16 else ""))


def read_pair(files: PairFiles) -> Pair:
    """Read a pair.

    Raises:
        DataError: a file is damaged, or the views differ in size, bit depth or number of channels.
    """
    paths = {"left": files.left, "right": files.right, **({"center": files.center} if files.center else {})}
    images = {view: read_image(path, gray=True) for view, path in paths.items()}
    first = images["left"]
    for view, image in images.items():
        what = _difference(first, image)
        if what:
            raise DataError(f"the views differ in {what[0]}: {files.left} has {what[1]}, {paths[view]} has "
                            f"{what[2]}. Both must come from one shot, converted alike")
    scale = np.iinfo(first.dtype).max
    tensors = {view: as_tensor(image, scale) for view, image in images.items()}
    return Pair(lq=torch.cat([tensors["left"], tensors["right"]], 1), center=tensors.get("center"),
                bits=first.dtype.itemsize * 8, colour=first.shape[2] == 3, name=bare_name(Path(files.left)))


def _difference(one, other):
    """(what, of one, of the other) for the first way in which two images differ, or None."""
    for what, describe in (("size", lambda i: f"{i.shape[1]} x {i.shape[0]} pixels"),
                           ("bit depth", lambda i: f"{i.dtype.itemsize * 8} bit"),
                           ("channels", lambda i: f"{i.shape[2]} channel{'s' * (i.shape[2] > 1)}")):
        if describe(one) != describe(other):
            return what, describe(one), describe(other)
    return None


def as_tensor(image, scale):
    """(H, W, 3) or (H, W, 1) integers to (1, 3, H, W) float32 in [0, 1]; one channel serves as all three."""
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / scale)
    return planes.expand(3, -1, -1)[None]


def restore_pair(run, pair: Pair, *, disparity_axis="x"):
    """The restored frame of a pair: a `RestoredFrame` with an image (1, 3, H, W).

    Args:
        run: a `FrameRestorer`.
        disparity_axis: None or "x"; "y" for frames taken with the camera turned, whose views are shifted
            along the columns. They are turned by a quarter counter-clockwise, as DPDNet and IFAN do, and the
            result back.
    """
    maps = run.maps_of({"name": pair.name})
    if disparity_axis in (None, "x"):
        return run(pair.lq, pair.center, maps)
    center = None if pair.center is None else pair.center.rot90(1, (-2, -1))
    frame = run(pair.lq.rot90(1, (-2, -1)), center, {name: found.rot90(1, (-2, -1)) for name, found in maps.items()})
    return type(frame)(frame.image.rot90(-1, (-2, -1)), frame.tiling, frame.same_as_whole, frame.peak_bytes)


def write_restored(path, image, *, bits, colour=True):
    """Write (1, 3, H, W) in [0, 1], clamped and rounded to 8 or 16 bits."""
    scale = 2 ** bits - 1
    array = (image[0].double().clamp(0, 1) * scale).round().permute(1, 2, 0).numpy()
    if not colour:
        array = np.round(array.mean(-1))
    write_image(path, array.astype(np.uint16 if bits == 16 else np.uint8))
