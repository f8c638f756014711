"""All scores of a comparison in one place: per image, means, differences; the numbers behind every table."""
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from k3dn_plugin.comparison.contestants import Contestant
from k3dn_plugin.comparison.settings import Settings
from k3dn_plugin.comparison.statistics import (
    Interval,
    PairedDifference,
    holm,
    paired_difference,
    spread,
    table_of,
    two_level_interval,
)
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.evaluation.results import RowFile
from k3dn_plugin.registry import METRICS

# What the mean of a PSNR takes for identical images: their infinity would hide all other images.
IDENTICAL = 100.0


@dataclass
class Entry:
    """A contestant and all that is known of it, by seed where it was trained here.

    Attributes:
        contestant, origin: who it is and where its weights come from, in words.
        file: its label as a file name.
        runs: seed -> result of training.
        scores: seed -> summary of scoring.
        folders: seed -> where its scores lie.
        cost: as `measure_restorers` gives it.
        chosen_on: hash of the data by whose scores the weights were chosen, where that is known.
    """

    contestant: Contestant
    origin: str
    file: str
    runs: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    folders: dict = field(default_factory=dict)
    cost: dict = field(default_factory=dict)
    chosen_on: str | None = None

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.contestant.label


@dataclass
class Comparison:
    """What was found.

    Attributes:
        entries: the contestants with all that is known of each.
        settings, protocol, data: what held for all.
        metrics: names in the protocol's order; the first one ranks.
        rows: one an image, contestant and seed: `label`, `seed`, `name`, `group`, the metrics and, as `input_...`,
            those of the blurred input.
        reference: label of the contestant that the others are compared with.
    """

    entries: list[Entry]
    settings: Settings
    protocol: dict
    data: dict
    metrics: list[str]
    rows: list[dict]
    reference: str

    @classmethod
    def of(cls, entries: Sequence[Entry], settings: Settings, protocol: str, dataset: Any) -> "Comparison":
        """Gather the scored entries.

        Raises:
            OptionError: they were scored by different protocols or on different data.
            DataError: scores were changed since they were written, or images are missing.
        """
        summaries = [summary for entry in entries for summary in entry.scores.values()]
        for what in ("protocol", "data_hash"):
            values = {json.dumps(s["protocol"] if what == "protocol" else s["provenance"][what], sort_keys=True)
                      for s in summaries}
            if len(values) > 1:
                raise OptionError(f"the scores come from different {what.replace('_hash', '')}s and do not belong in "
                                  "one table; score all anew under another --out")
        rows = [row for entry in entries for seed, folder in entry.folders.items()
                for row in _rows(entry.label, seed, folder / "per_image.csv", len(dataset))]
        metrics = list(dict.fromkeys(key for row in rows for key in row if key not in FACTS and not _of_input(key)))
        names = list(summaries[0]["protocol"]["metrics"])
        metrics = names + [key for key in metrics if key not in names]
        return cls(list(entries), settings, summaries[0]["protocol"],
                   {"name": dataset.card.name, "hash": summaries[0]["provenance"]["data_hash"], "images": len(dataset),
                    "path": str(settings.data)}, metrics, rows, settings.reference or entries[0].label)

    @property
    def first(self) -> str:
        """The metric that ranks."""
        return self.metrics[0]

    def entry(self, label: str) -> Entry:
        """Return the contestant with a label."""
        return next(one for one in self.entries if one.label == label)

    @functools.cached_property
    def _table(self) -> dict[str, dict[str, dict[object, dict]]]:
        """Label -> image -> seed -> row."""
        found: dict = {}
        for row in self.rows:
            found.setdefault(row["label"], {}).setdefault(row["name"], {})[row["seed"]] = row
        return found

    def by_seed(self, label: str, metric: str, group: str | None = None) -> dict[str, list[float]]:
        """Return a contestant's metric by image: one value a seed, in the seeds' order."""
        found = {}
        for name, rows in self._table[label].items():
            values = [row.get(metric) for row in rows.values() if group in (None, row["group"])]
            known = [value for value in values if value is not None]
            if values and len(known) == len(values):
                found[name] = [_finite(value) for value in known]
        return found

    def scores(self, label: str, metric: str, group: str | None = None) -> dict[str, float]:
        """Return a contestant's metric by image, the mean over its seeds."""
        return {name: sum(values) / len(values) for name, values in self.by_seed(label, metric, group).items()}

    def mean(self, label: str, metric: str, group: str | None = None) -> float | None:
        """Return the mean over the images, of the means over seeds."""
        values = list(self.scores(label, metric, group).values())
        return sum(values) / len(values) if values else None

    @functools.cache  # noqa: B019 - a comparison lives as long as the process
    def interval(self, label: str, metric: str) -> Interval | None:
        """Return the mean over images and seeds with its interval."""
        found = self.by_seed(label, metric)
        return two_level_interval(table_of(found, list(found))) if found else None

    def over_seeds(self, label: str, metric: str) -> tuple[float, float | None] | None:
        """Return mean and standard deviation, over seeds, of the mean over images."""
        found = self.by_seed(label, metric)
        return spread(table_of(found, list(found)).mean(1)) if found else None

    def gain(self, label: str, metric: str) -> float | None:
        """Return the mean over images of what a contestant gains over the blurred input; positive is better."""
        ours, blurred = self.scores(label, metric), self.scores(label, f"input_{metric}")
        both = [ours[name] - blurred[name] for name in ours if name in blurred]
        return (1 if higher_is_better(metric) else -1) * float(np.mean(both)) if both else None

    @functools.cache  # noqa: B019
    def differences(self, metric: str) -> Mapping[str, PairedDifference]:
        """Return the difference of every other contestant from the reference, corrected for their number (Holm)."""
        theirs, found = self.by_seed(self.reference, metric), {}
        for entry in self.entries:
            ours = self.by_seed(entry.label, metric)
            if entry.label != self.reference and set(ours) & set(theirs):
                found[entry.label] = paired_difference(
                    ours, theirs, higher_is_better=higher_is_better(metric), identical=self._identical(entry))
        return holm(found)

    def _identical(self, entry: Entry) -> bool:
        """Whether a contestant has the reference's weights and settings."""
        def content(one: Entry) -> list:
            return sorted([summary["provenance"][key] for key in ("restorer", "weights_hash", "settings_hash")]
                          for summary in one.scores.values())
        return content(entry) == content(self.entry(self.reference))

    def difference(self, label: str, metric: str) -> PairedDifference | None:
        """Return the difference from the reference; None for the reference itself."""
        return self.differences(metric).get(label)

    def groups(self) -> list[str]:
        """Return the labels of the images (indoor, outdoor), sorted."""
        return sorted({row["group"] for row in self.rows} - {""})

    def ranked(self) -> list[Entry]:
        """Return the entries, best first."""
        sign = -1 if higher_is_better(self.first) else 1
        return sorted(self.entries, key=lambda entry: sign * (self.mean(entry.label, self.first) or 0))

    def __hash__(self) -> int:
        return id(self)


def higher_is_better(metric: str) -> bool:
    """Return whether more of a metric is better; scores that are no registered metric are in dB."""
    if metric in METRICS.names():
        return bool(getattr(METRICS.get(metric), "higher_is_better", True))
    return not metric.startswith(("map_", "harm_"))


def unit(metric: str) -> str:
    """Return a metric's unit, or the empty string."""
    if metric in METRICS.names():
        return str(getattr(METRICS.get(metric), "unit", ""))
    return "" if metric.startswith("map_") else "dB"


FACTS = ("label", "seed", "name", "group", "seconds", "tiling")


def _of_input(key: str) -> bool:
    return key.startswith("input_")


def _finite(value: float) -> float:
    return math.copysign(IDENTICAL, value) if math.isinf(value) else value


def _rows(label: str, seed: int | None, path: Path, count: int) -> Iterator[dict]:
    rows = RowFile.at(path).rows()
    if len(rows) != count:
        raise DataError(f"{path}: {len(rows)} whole and unchanged rows, expected {count}. Run the same command again: "
                        "what is missing is scored anew")
    for row in rows:
        yield {"label": label, "seed": "" if seed is None else seed, "name": row.name, "group": row.group,
               **row.scores, **{f"input_{name}": value for name, value in row.input_scores.items()},
               "seconds": row.seconds, "tiling": row.tiling}
