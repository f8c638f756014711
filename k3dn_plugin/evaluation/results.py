"""Scores image by image, their means, and the files they are kept in."""
import csv
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.provenance import identity
from k3dn_plugin.files import atomic_write, storage_error

INPUT = "input_"


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
        """The row that `flat` made, read back from a CSV file (all values strings)."""
        known = ("index", "name", "group", "seconds", "tiling", "same_as_whole")
        values = {k: float(v) if v else None for k, v in row.items() if k not in known}
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
        pictures: files that were written.
    """

    rows: list[ImageRow]
    protocol: dict
    provenance: dict
    kept: int = 0
    pictures: list[Path] = field(default_factory=list)

    def means(self, group: str | None = None) -> dict[str, float]:
        """Means over the images (of one group) of each image's score: `psnr`, ..., `input_psnr`, ...

        A mean is over the images to which the score applies, and left out where there are none.
        """
        rows = [row for row in self.rows if group is None or row.group == group]
        names = {**{n: None for row in rows for n in row.scores},
                 **{INPUT + n: None for row in rows for n in row.input_scores}}
        flat = [row.flat() for row in rows]
        found = {name: [row[name] for row in flat if row.get(name) is not None] for name in names}
        return {name: math.fsum(values) / len(values) for name, values in found.items() if values}

    def groups(self) -> list[str]:
        """The groups that occur, sorted; none where the data set has no labels."""
        return sorted({row.group for row in self.rows} - {""})

    def summary(self) -> dict:
        """Means over all images and by group, with protocol and provenance: what summary.json holds."""
        tiled = sum(row.tiling != "whole" for row in self.rows)
        return {"images": len(self.rows), "means": self.means(),
                "groups": {g: {"images": sum(r.group == g for r in self.rows), "means": self.means(g)}
                           for g in self.groups()},
                "seconds_per_image": math.fsum(r.seconds for r in self.rows) / max(len(self.rows), 1),
                "tiled_images": tiled,
                "tiling_changes_result": any(not row.same_as_whole for row in self.rows),
                "protocol": self.protocol, "provenance": self.provenance}

    def table(self) -> str:
        """The means as text: the input's row, then the restored images', by group and together."""
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
        """The whole of the shares of several processes.

        Raises:
            OptionError: two shares were scored by different protocols.
        """
        results = list(results)
        check_one_protocol(results)
        rows = {row.index: row for result in results for row in result.rows}
        return cls(rows=[rows[i] for i in sorted(rows)], protocol=results[0].protocol,
                   provenance=results[0].provenance, kept=sum(r.kept for r in results),
                   pictures=[p for r in results for p in r.pictures])

    def write(self, folder) -> Path:
        """Write per_image.csv and summary.json into `folder`, each whole or not at all; the latter's path.

        The files in which several processes kept their shares are then no longer needed, and removed.
        """
        folder = Path(folder)
        RowFile(folder / "per_image.csv", identity(self.provenance, self.protocol)).start(self.rows)
        write_json(folder / "summary.json", self.summary())
        for share in folder.glob("per_image.*of*.*"):
            share.unlink(missing_ok=True)
        return folder / "summary.json"


def check_one_protocol(results):
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

    def __init__(self, path, identity):
        self.path = Path(path)
        self.sidecar = self.path.with_suffix(".identity.json")
        self.identity = plain(identity)

    def rows(self) -> list[ImageRow]:
        """The rows there, if they belong to the same identity; a row cut short by a kill is left out."""
        if self.stored_identity() != self.identity:
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return []
        rows = []
        for row in csv.DictReader(text[:text.rfind("\n") + 1].splitlines()):
            try:
                rows.append(ImageRow.from_flat(row))
            except (KeyError, TypeError, ValueError):
                break
        return rows

    def stored_identity(self):
        """What the rows in the file belong to, or None where there is no file or it cannot be read."""
        try:
            return json.loads(self.sidecar.read_text(encoding="utf-8")) if self.path.exists() else None
        except (OSError, ValueError):
            return None

    def keep_other(self):
        """Move results that belong to something else into a folder of their own, `older_<weights>`."""
        stored = self.stored_identity()
        if stored is None or stored == self.identity:
            return
        base = f"older_{str(stored.get('weights_hash', 'unknown'))[:8]}"
        names = itertools.chain([base], (f"{base}_{n}" for n in itertools.count(2)))
        older = next(f for f in map(self.path.parent.joinpath, names) if not f.exists())
        try:
            older.mkdir()
            for name in (self.path.name, self.sidecar.name, "summary.json", "pictures"):
                if (self.path.parent / name).exists():
                    (self.path.parent / name).rename(older / name)
        except OSError as error:
            raise storage_error(older, error) from error

    def start(self, rows):
        """Begin the file anew with `rows`."""
        write_json(self.sidecar, self.identity)
        with atomic_write(self.path, "w", newline="", encoding="utf-8") as file:
            for row in rows:
                self._write(file, row)

    def append(self, row):
        """Add a row, flushed to the file."""
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                self._write(file, row)
        except OSError as error:
            raise storage_error(self.path, error) from error

    @staticmethod
    def _write(file, row):
        flat = row.flat()
        writer = csv.DictWriter(file, list(flat))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(flat)


def write_json(path, data):
    """Write plain data as JSON, whole or not at all."""
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(plain(data), file, indent=2, allow_nan=False)
        file.write("\n")


def plain(value):
    """A copy that every JSON reader takes: infinities and NaN as text, tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return str(value)
