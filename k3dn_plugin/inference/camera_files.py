"""Restoring straight out of camera files: both views of a shot come out of one file (or one set of files)."""
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from k3dn_plugin.data.exif import Exif, read_exif
from k3dn_plugin.data.image_metadata import ImageMetadata
from k3dn_plugin.data.raw import ViewSettings, find_sources
from k3dn_plugin.data.raw.base import Axis, ViewReader
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import read_file
from k3dn_plugin.inference.files import Pair, as_tensor, check_not_inputs

# LibRaw's codes of the camera's orientation -> quarter turns counter-clockwise that put the picture upright.
QUARTER_TURNS = {0: 0, 3: 2, 5: 1, 6: 3}


@dataclass(frozen=True)
class CameraShot:
    """One shot in camera files, and where its result goes."""

    reader: ViewReader
    source: Path
    out: Path

    @property
    def inputs(self) -> list[Path]:
        """The files that hold it."""
        return self.reader.files(self.source)


class FoundShots(NamedTuple):
    """The shots, an error for each file out of which none comes, and what else is to be said."""

    shots: list[CameraShot]
    faults: list[DataError]
    notes: list[str]


def find_shots(paths: Iterable[str | Path], out: str | Path) -> FoundShots:
    """Return the shots that files and folders hold, and what is wrong with the others.

    Args:
        paths: raw files, files of pairs or quad-pixel sets, or folders of these.
        out: a file, where there is one shot, else a folder.

    Raises:
        DataError: no path gives a shot; the message says why of each.
        OptionError: several shots are to go into one file, or two have one name.
    """
    out = Path(out)
    shots, faults, said = find_sources(paths)
    is_file = bool(out.suffix) and not out.is_dir()
    if is_file and len(shots) > 1:
        raise OptionError(f"-o {out}: there are {len(shots)} shots to restore, so give a folder for the results")
    found: dict[Path, CameraShot] = {}
    for reader, source in shots:
        target = out if is_file else out / f"{reader.shot_name(source)}.png"
        if target in found:
            raise OptionError(f"{found[target].source} and {source} would both be written to {target}; restore them "
                              "one at a time, with folders of their own for -o")
        found[target] = CameraShot(reader, source, target)
    check_not_inputs(found, (path for shot in found.values() for path in shot.inputs))
    return FoundShots(list(found.values()), faults, said)


def read_shot(shot: CameraShot, *, swap: bool = False, axis: Axis | None = None) -> Pair:
    """Read the views of a shot as a network takes them: sRGB, with the captured sum as the center.

    Args:
        swap: exchange left and right; no camera file says which is which.
        axis: along which the views are to be shifted, or are; for kinds of files that do not tell (quad-pixel sets
            hold a pair for each). The others have their own, which the pair says.

    Raises:
        DataError: the file is damaged, or no dual-pixel shot.
        DependencyError: rawpy is not installed.
    """
    views = shot.reader.read(shot.source, ViewSettings(swap=swap, axis=axis or "x"))
    scale = 2 ** views.bits - 1
    left, right, center = (as_tensor(view, scale) for view in (views.left, views.right, views.center))
    return Pair(lq=torch.cat([left, right], 1), center=center, bits=views.bits, colour=views.left.shape[2] == 3,
                disparity_axis=views.disparity_axis, quarter_turns=QUARTER_TURNS.get(views.metadata.get("flip", 0), 0),
                metadata=views.picture or ImageMetadata(exif=_exif_of(shot.source)))


def _exif_of(source: Path) -> Exif:
    """Return what a raw file of a TIFF's structure says of how the shot was taken; the result stands upright."""
    return read_exif(read_file(source)) if source.is_file() else Exif()
