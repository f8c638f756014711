"""Scores image by image, their means, and the files they are kept in."""
import csv
import io
import itertools
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.evaluation.provenance import identity, text_hash
from k3dn_plugin.files import atomic_write, read_file, storage_error

INPUT = "input_"
CHECK = "check"      # last column of a row: a hash of all others and of what the row belongs to
KNOWN = ("index", "name", "group", "seconds", "tiling", "same_as_whole", CHECK)


@dataclass(frozen=True)
class ImageRow:
    """The scores of one image.

    Attributes:
        index, name: in the data set.
        group: "indoor", "outdoor" or another label of the data set; may be empty.
        scores: by metric name, None where one does not apply to this image.
        input_scores: the same for the blurred center view, doing nothing.
        seconds: spent restoring.
        tiling: "whole", or the tiles in words.
        same_as_whole: whether tiling leaves the result as it is, as far as is known.
    """

    index: int
    name: str
    group: str
    scores: dict[str, float | None]
    input_scores: dict[str, float | None]
    seconds: float
    tiling: str = "whole"
    same_as_whole: bool = True

    def flat(self) -> dict:
        """One row of a CSV file: the input's scores beside the restored image's, as `input_psnr`."""
        return {"index": self.index, "name": self.name, "group": self.group, **self.scores,
                **{INPUT + name: value for name, value in self.input_scores.items()},
                "seconds": round(self.seconds, 4), "tiling": self.tiling,
                "same_as_whole": self.same_as_whole}

    @classmethod
    def from_flat(cls, row: dict) -> "ImageRow":
        """Return the row that `flat` made, read back from a CSV file (all values strings)."""
        values = {k: float(v) if v else None for k, v in row.items() if k not in KNOWN}
        return cls(index=int(row["index"]), name=row["name"], group=row["group"],
                   scores={k: v for k, v in values.items() if not k.startswith(INPUT)},
                   input_scores={k[len(INPUT):]: v for k, v in values.items() if k.startswith(INPUT)},
                   seconds=float(row["seconds"]), tiling=row["tiling"],
                   same_as_whole=row["same_as_whole"] == "True")


@dataclass
class EvaluationResult:
    """What an evaluation, or one process's share of it, found.

    Attributes:
        rows: one an image, in the data set's order.
        protocol: the protocol's facts (`EvaluationProtocol.facts`).
        provenance: weights, data, settings, device and versions (`provenance.py`).
        kept: images whose rows an earlier, interrupted evaluation had left.
        damaged: rows that were found changed since they were written, and were computed again.
        pictures: files that were written.
    """

    rows: list[ImageRow]
    protocol: dict
    provenance: dict
    kept: int = 0
    damaged: int = 0
    pictures: list[Path] = field(default_factory=list)

    def means(self, group: str | None = None) -> dict[str, float]:
        """Return means over the images (of one group) of each image's score: `psnr`, ..., `input_psnr`, ...

        A mean is over the images to which the score applies, and left out where there are none.
        """
        rows = [row for row in self.rows if group is None or row.group == group]
        names = {**{n: None for row in rows for n in row.scores},
                 **{INPUT + n: None for row in rows for n in row.input_scores}}
        flat = [row.flat() for row in rows]
        found = {name: [row[name] for row in flat if row.get(name) is not None] for name in names}
        return {name: mean_of(values) for name, values in found.items() if values}

    def identity(self) -> dict:
        """Return what the scores belong to; see `provenance.identity`."""
        return identity(self.provenance, self.protocol)

    def groups(self) -> list[str]:
        """Return the groups that occur, sorted; none where the data set has no labels."""
        return sorted({row.group for row in self.rows} - {""})

    def summary(self) -> dict:
        """Return means over all images and by group, with protocol and provenance: what summary.json holds."""
        tiled = sum(row.tiling != "whole" for row in self.rows)
        return {"images": len(self.rows), "means": self.means(),
                "groups": {g: {"images": sum(r.group == g for r in self.rows), "means": self.means(g)}
                           for g in self.groups()},
                "seconds_per_image": math.fsum(r.seconds for r in self.rows) / max(len(self.rows), 1),
                "tiled_images": tiled,
                "tiling_changes_result": any(not row.same_as_whole for row in self.rows),
                "protocol": self.protocol, "provenance": self.provenance}

    def table(self) -> str:
        """Return the means as text: the input's row, then the restored images', by group and together."""
        names = [name for name in self.means() if not name.startswith(INPUT)]
        lines = [f"{'':10}{'images':>8}" + "".join(f"{name:>{len(name) + 4}}" for name in names)]
        for group in [*self.groups(), None]:
            means, count = self.means(group), sum(group in (None, r.group) for r in self.rows)
            for prefix, label in ((INPUT, "input"), ("", "restored")):
                if any(prefix + name in means for name in names):
                    cells = "".join(f"{means[prefix + name]:>{len(name) + 4}.4f}" if prefix + name in means
                                    else f"{'-':>{len(name) + 4}}" for name in names)
                    lines.append(f"{label:10}{count:>8}{cells}" + (f"  {group}" if group else ""))
        return "\n".join(lines)

    @classmethod
    def merged(cls, results: Iterable["EvaluationResult"]) -> "EvaluationResult":
        """Return the whole of the shares of several processes.

        Raises:
            OptionError: two shares were scored by different protocols.
        """
        results = list(results)
        check_one_protocol(results)
        rows = {row.index: row for result in results for row in result.rows}
        return cls(rows=[rows[i] for i in sorted(rows)], protocol=results[0].protocol,
                   provenance=results[0].provenance, kept=sum(r.kept for r in results),
                   damaged=sum(r.damaged for r in results),
                   pictures=[p for r in results for p in r.pictures])

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write per_image.csv and summary.json into `folder`, each whole or not at all; the latter's path.

        The files in which several processes kept their shares are then no longer needed, and removed.
        """
        folder = Path(folder)
        RowFile(folder / "per_image.csv", self.identity()).start(self.rows)
        write_json(folder / "summary.json", self.summary())
        for share in folder.glob("per_image.*of*.*"):
            share.unlink(missing_ok=True)
        return folder / "summary.json"


def mean_of(values: Iterable[float]) -> float:
    """Return the mean, in which infinity stands where any value is infinite (PSNR of identical images), never NaN."""
    values = list(values)
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) == len(values):
        return math.fsum(values) / len(values)
    return next(value for value in values if not math.isfinite(value))


def check_one_protocol(results: Iterable[EvaluationResult]) -> None:
    """Raise `OptionError` unless all results were scored by one protocol: their scores do not compare."""
    found = {json.dumps(plain(r.protocol), sort_keys=True): r.protocol.get("name") for r in results}
    if len(found) > 1:
        raise OptionError(f"scores of different protocols ({', '.join(map(str, found.values()))}) do not "
                          "belong in one table; evaluate all with the same --protocol")


class RowFile:
    """A CSV file that grows by a whole row at a time, so that a killed evaluation leaves its rows.

    Args:
        path: the file.
        identity: what the rows belong to (plain data), kept beside it as JSON.
    """

    def __init__(self, path: str | Path, identity: dict) -> None:
        self.path = Path(path)
        self.sidecar = self.path.with_suffix(".identity.json")
        self.identity = plain(identity)
        self.damaged = 0

    @property
    def _key(self) -> str:
        return text_hash(self.identity)

    @classmethod
    def at(cls, path: Path) -> "RowFile":
        """Return the file as it lies there, with the identity that is kept beside it."""
        file = cls(path, {})
        file.identity = file.stored_identity()
        return file

    def rows(self) -> list[ImageRow]:
        """Return the whole and unchanged rows there, if they belong to the same identity; `damaged` counts the others.

        A row cut short by a kill is left out without being counted.
        """
        self.damaged = 0
        if self.identity is None or self.stored_identity() != self.identity:
            return []
        try:
            text = read_file(self.path).decode("utf-8", "surrogateescape")
        except DataError:
            return []
        rows = {}
        # A name may hold a line break, so lines are the reader's matter.
        for row in csv.DictReader(io.StringIO(text[:text.rfind("\n") + 1], newline="")):
            try:
                if row.get(CHECK) != self._check(row):
                    raise ValueError(row.get("name"))
                one = ImageRow.from_flat(row)
                rows[one.index] = one
            except (KeyError, TypeError, ValueError):
                self.damaged += 1
        return list(rows.values())

    def _check(self, row: dict) -> str:
        """The hash of a row and of what it belongs to."""
        values = [[str(key), "" if value is None else str(value)] for key, value in row.items() if key != CHECK]
        return text_hash([self._key, values], 12)

    def stored_identity(self) -> dict | None:
        """Return what the rows in the file belong to, or None where there is no file or it cannot be read."""
        try:
            found = json.loads(read_file(self.sidecar)) if self.path.exists() else None
        except (DataError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def keep_other(self, *, alone: bool = False) -> None:
        """Move results that belong to something else into a folder of their own, `older_<weights>`.

        Args:
            alone: move the rows without summary and pictures, which are of another file.
        """
        stored = self.stored_identity()
        if stored is None or stored == self.identity:
            return
        base = f"older_{str(stored.get('weights_hash', 'unknown'))[:8]}"
        names = itertools.chain([base], (f"{base}_{n}" for n in itertools.count(2)))
        older = next(f for f in map(self.path.parent.joinpath, names) if not f.exists())
        try:
            older.mkdir()
            for name in (self.path.name, self.sidecar.name, *(() if alone else ("summary.json", "pictures"))):
                if (self.path.parent / name).exists():
                    (self.path.parent / name).rename(older / name)
        except OSError as error:
            raise storage_error(older, error) from error

    def start(self, rows: Iterable[ImageRow]) -> None:
        """Begin the file anew with `rows`."""
        write_json(self.sidecar, self.identity)
        with atomic_write(self.path, "w", newline="", encoding="utf-8") as file:
            for row in rows:
                self._write(file, row)

    def append(self, row: ImageRow) -> None:
        """Add a row, flushed to the file."""
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                self._write(file, row)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _write(self, file: IO[str], row: ImageRow) -> None:
        flat = row.flat()
        flat[CHECK] = self._check(flat)
        writer = csv.DictWriter(file, list(flat))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(flat)


def write_json(path: str | Path, data: object) -> None:
    """Write plain data as JSON, whole or not at all."""
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(plain(data), file, indent=2, allow_nan=False)
        file.write("\n")


def plain(value: Any) -> Any:
    """Return a copy that every JSON reader takes: infinities and NaN as text, tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return str(value)
