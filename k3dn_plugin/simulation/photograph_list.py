"""The list of freely licensed photographs (`datasets/photographs/`), and the sharp crops cut out of them.

The list names source, author, licence and place of every crop; the pictures themselves are fetched by whoever wants
them. A crop is the photograph shrunk by area averaging, which takes the camera's own blur and compression away.
"""
import csv
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.data.listing import list_files
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import file_hash, shared_file
from k3dn_plugin.simulation.photographs import ENDINGS

SIDE = 512        # rows and columns of a crop
BLOCKS = 4        # of a fingerprint, along each side
LARGEST_DIFFERENCE = 6.0  # mean, of 255, of fingerprints of the same place; other pictures differ by tens


class ListedPhotograph(NamedTuple):
    """A photograph of the list: its name in `crops.csv`, where it comes from, and by whom."""

    photograph: str
    source: str
    path: str
    author: str
    licence: str
    sha256: str


class ListedCrop(NamedTuple):
    """A crop: the photograph's size after shrinking, the crop's place in that, and its block means in hexadecimal."""

    crop: str
    photograph: str
    rows: int
    columns: int
    top: int
    left: int
    fingerprint: str


def listed_photographs() -> dict[str, ListedPhotograph]:
    """Return the listed photographs by name."""
    return {row["photograph"]: ListedPhotograph(**row) for row in _rows("sources.csv")}


def listed_crops() -> list[ListedCrop]:
    """Return the listed crops."""
    return [ListedCrop(row["crop"], row["photograph"], int(row["rows"]), int(row["columns"]), int(row["top"]),
                       int(row["left"]), row["fingerprint"]) for row in _rows("crops.csv")]


def find_photographs(folder: str | Path, listed: Mapping[str, ListedPhotograph]) -> dict[str, Path]:
    """Find listed photographs in a folder and those below it: by their path in the source, or by their name.

    Returns:
        Files by name in the list; those that are not there are missing in it.

    Raises:
        DataError: the folder is not there, or holds none of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with the listed photographs below it, found no such folder")
    by_ending: dict[str, Path] = {}
    for path in list_files(folder, sorted(ENDINGS), below=True):
        parts = path.relative_to(folder).parts
        for count in range(1, len(parts) + 1):
            by_ending.setdefault("/".join(parts[-count:]), path)
    found = {}
    for name, entry in listed.items():
        # In full, as a checkout or an unpacked package has it; flattened as in the list; or the file alone.
        for ending in (entry.path, entry.path.replace("/", "__"), name, entry.path.rpartition("/")[2]):
            if ending in by_ending:
                found[name] = by_ending[ending]
                break
    if not found:
        first = next(iter(listed.values()))
        raise DataError(f"{folder}: expected photographs of the list below it, such as {first.path} of {first.source}, "
                        "found none. datasets/photographs/README.md says where they come from")
    return found


def cut_crops(path: str | Path, entry: ListedPhotograph, crops: Iterable[ListedCrop], out: str | Path, *,
              done: Callable[[], object] = lambda: None) -> list[Path]:
    """Cut the crops of one photograph into PNG files of a folder; what is there already is not cut again.

    Args:
        path: the photograph's file.
        entry: what the list says of it.
        crops: of this photograph.
        out: the folder, which is made.
        done: called after each crop.

    Raises:
        DataError: the file is not the listed photograph, or cannot be read.
        StorageError: the disk is full.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    image, shrunk, size, written = None, np.empty(0), None, []
    for crop in crops:
        target = out / f"{crop.crop}.png"
        if not target.exists():
            if image is None:
                image = _photograph(path, entry)
            if size != (crop.rows, crop.columns):
                size = crop.rows, crop.columns
                shrunk = _shrunk(image, size, path)
            piece = shrunk[crop.top:crop.top + SIDE, crop.left:crop.left + SIDE]
            _check(piece, crop, path, entry)
            write_image(target, piece)
        written.append(target)
        done()
    return written


def fingerprint(piece: np.ndarray) -> str:
    """Compute the mean brightness of `BLOCKS` x `BLOCKS` parts of an (H, W, 3) uint8 picture, in hexadecimal."""
    gray = cv2.cvtColor(piece, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA).tobytes().hex()


def _photograph(path: str | Path, entry: ListedPhotograph) -> np.ndarray:
    image = read_image(path)
    if entry.sha256 and file_hash(path) != entry.sha256:
        raise DataError(f"{path}: expected {entry.path} of {entry.source} with the SHA-256 {entry.sha256[:12]}..., "
                        "found another file. Get that version, or take the file away: its crops are left out then")
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _shrunk(image: np.ndarray, size: tuple[int, int], path: str | Path) -> np.ndarray:
    rows, columns = image.shape[0] / size[0], image.shape[1] / size[1]
    if rows < 0.999 or abs(rows / columns - 1) > 0.005:
        raise DataError(f"{path}: expected a photograph that shrinks to {size[0]} x {size[1]} pixels, found "
                        f"{image.shape[0]} x {image.shape[1]}: it is another version of the listed one")
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _check(piece: np.ndarray, crop: ListedCrop, path: str | Path, entry: ListedPhotograph) -> None:
    expected, found = (np.frombuffer(bytes.fromhex(text), np.uint8).astype(float)
                       for text in (crop.fingerprint, fingerprint(piece)))
    difference = float(np.abs(expected - found).mean())
    if difference > LARGEST_DIFFERENCE:
        raise DataError(f"{path}: expected {entry.path} of {entry.source}, found another picture: the place of "
                        f"{crop.crop} differs by {difference:.0f} of 255 levels on average")


def _rows(name: str) -> list[dict[str, str]]:
    path = shared_file("datasets", os.path.join("photographs", name))
    if path is None:
        raise DataError(f"datasets/photographs/{name} is missing: this installation is not whole; install it again")
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
