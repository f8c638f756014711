"""Views as files, and what is to be said of them."""
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.listing import ENDINGS
from k3dn_plugin.data.raw.base import ViewReader, Views
from k3dn_plugin.data.raw.sides import describe_sides, is_along_other_axis, measure_sides
from k3dn_plugin.errors import OptionError


def shot_names(shots: list[tuple[ViewReader, Path]]) -> list[str]:
    """Return what the results of each shot are called.

    Raises:
        OptionError: two shots would write the same files.
    """
    owners: dict[str, Path] = {}
    for reader, source in shots:
        name = reader.shot_name(source)
        if name in owners:
            raise OptionError(f"{owners[name]} and {source} would both be written as {name}_L; give them one at a "
                              "time, with folders of their own for -o")
        owners[name] = source
    return list(owners)


def write_views(views: Views, folder: Path, name: str, *, suffix: str = ".png", mask: bool = False) -> list[Path]:
    """Write the views as `NAME_L`, `NAME_R`, `NAME_C`, and `NAME_M.png` (white where valid) if asked; return the paths.

    They get the color profile, the orientation and EXIF of a shot that was pictures already.

    Raises:
        StorageError: the folder cannot be written.
    """
    written = []
    for view in ("left", "right", "center"):
        written.append(folder / f"{name}_{ENDINGS[view][0].upper()}{suffix}")
        write_image(written[-1], getattr(views, view), views.picture)
    if mask and views.valid is not None:
        written.append(folder / f"{name}_M.png")
        write_image(written[-1], views.valid.astype(np.uint8) * 255)
    return written


def report(views: Views, source: Path, files: list[Path]) -> list[str]:
    """Return what is to be said of a shot, line by line."""
    rows, columns = views.left.shape[:2]
    facts = views.metadata
    lines = [f"{source}: {facts['kind']}, {facts['camera']}; {columns} x {rows} pixels, "
             f"{'sRGB' if views.light == 'srgb' else 'linear'}, {views.bits} bits",
             f"  written: {', '.join(map(str, files))}"]
    if views.clipped_share:
        lines.append(f"  clipped: {views.clipped_share:.2%} of the pixels are overexposed or beside such; there the "
                     "views are not to be trusted (--mask writes where)")
    measured = measure_sides(views.left, views.right)
    lines.append("  " + describe_sides(measured, views.disparity_axis))
    if is_along_other_axis(measured, views.disparity_axis):
        other = "rows" if views.disparity_axis == "x" else "columns"
        lines.append(f"  warning: the views are shifted along the {other}, where this kind of file should have none")
    elif views.disparity_axis == "y":
        lines.append("  note: restore these with --disparity-axis y")
    if facts.get("flip"):
        lines.append("  note: the camera was turned; the views keep the sensor's orientation, along whose rows they "
                     "are shifted")
    return lines + [f"  note: {note}" for note in facts.get("notes", ())]
