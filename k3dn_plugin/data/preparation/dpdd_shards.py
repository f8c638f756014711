"""DPDD's Parquet shards, as its public Hugging Face copy has them (configurations left, right and combined).

Each view's folder holds `SPLIT-00000-of-0000N.parquet`; pictures are in the column `source`, and all-in-focus images
in the column `target` beside the combined ones. A row of one view belongs to the rows of the others by its picture's
file name, or by its number where shards have no names.
"""
import re
from pathlib import Path

from k3dn_plugin.data.listing import stem, view_ending
from k3dn_plugin.data.parquet_images import ParquetColumn, ParquetImage, image_of
from k3dn_plugin.data.preparation.files import match_views
from k3dn_plugin.errors import DataError

FOLDERS = {"left": ("left", "source"), "right": ("right", "source"), "center": ("combined", "source"),
           "sharp": ("combined", "target")}
ROOTS = (".", "DPDD", "data")
_SHARD = re.compile(r"(?P<split>train|val|validation|test)-(?P<number>\d+)-of-(?P<count>\d+)\.parquet")

Pictures = dict[str, dict[str, ParquetImage]]


def find_root(source: Path) -> Path | None:
    """Return the folder with the shards' folders below `source`, or None."""
    return next((source / root for root in ROOTS for folder in ("left", "right", "combined")
                 if any((source / root / folder).glob("*.parquet"))), None)


def read_split(root: Path, split: str) -> tuple[Pictures, dict[str, str], list[str]] | None:
    """Return the pictures of a split by view and scene, the names of the scenes' truths, and notes.

    None where the split has no shards.

    Raises:
        DataError: shards or rows are missing, doubled, damaged, or differ between the views.
        DependencyError: pyarrow is not installed.
    """
    shards = {view: _shards(root / folder, split) for view, (folder, _) in FOLDERS.items()}
    if not any(shards.values()):
        return None
    for view, files in shards.items():
        if not files:
            raise DataError(f"{root / FOLDERS[view][0]}: no {split} shards ({split}-00000-of-....parquet) of the "
                            f"{view} view, others have some. Copy the missing folder")
    columns = {view: [ParquetColumn(file, FOLDERS[view][1]) for file in files] for view, files in shards.items()}
    counts = {view: sum(column.rows for column in each) for view, each in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{root}: the {split} shards hold "
                        + ", ".join(f"{count} rows of the {view} view" for view, count in counts.items())
                        + "; expected as many of each. Download the missing ones")
    images = {view: [image_of(column, row) for column in each for row in range(column.rows)]
              for view, each in columns.items()}
    names = {view: [name for column in each for row in range(column.rows) if (name := column.names[row]) is not None]
             for view, each in columns.items()}
    if any(len(each) < counts[view] for view, each in names.items()):
        scenes = [f"{split}_{row:04d}" for row in range(counts["left"])]
        pictures = {view: dict(zip(scenes, each, strict=True)) for view, each in images.items()}
        return pictures, {}, ["the shards have no file names: scenes are numbered, views belong together by row"]
    pictures = {view: _by_name(view, names[view], images[view]) for view in ("left", "right", "center")}
    match_views({view: {scene: Path(picture) for scene, picture in each.items()} for view, each in pictures.items()})
    of_center = [_scene(name) for name in names["center"]]
    pictures["sharp"] = dict(zip(of_center, images["sharp"], strict=True))
    return pictures, dict(zip(of_center, map(_scene, names["sharp"]), strict=True)), []


def _shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split in order, all of them or none."""
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _SHARD.fullmatch(path.name)
        if match and {"validation": "val"}.get(match["split"], match["split"]) == split:
            found[int(match["number"])] = (path, int(match["count"]))
    if not found:
        return []
    count = max(count for _, count in found.values())
    missing = [number for number in range(count) if number not in found]
    if missing or len(found) != count:
        raise DataError(f"{folder}: of the {count} {split} shards "
                        + (f"number {missing[0]} is missing ({len(missing)} such)" if missing else "some are doubled")
                        + f"; found {', '.join(path.name for path, _ in found.values())}. Download the missing ones")
    return [found[number][0] for number in range(count)]


def _by_name(view: str, names: list[str], images: list[ParquetImage]) -> dict[str, ParquetImage]:
    found: dict[str, ParquetImage] = {}
    for name, image in zip(names, images, strict=True):
        scene = _scene(name)
        if scene in found:
            raise DataError(f"{found[scene]} and {image} are both the {view} view of scene {scene}; expected each "
                            "once. Download the shards again")
        found[scene] = image
    return found


def _scene(name: str) -> str:
    return view_ending(stem(name))[0]
