"""All scores of a comparison in one place: per image, means, differences; the numbers behind every table."""
import csv
import json
from dataclasses import dataclass

from k3dn_plugin.comparison.statistics import PairedDifference, paired_difference, spread
from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import METRICS


@dataclass
class Comparison:
    """What was found.

    Attributes:
        entries: the contestants with all that is known of each.
        settings, protocol, data: what held for all.
        metrics: names in the protocol's order; the first one ranks.
        rows: one an image, contestant and seed: `label`, `seed`, `name`, `group` and the metrics.
        reference: label of the contestant that the others are compared with.
    """

    entries: list
    settings: object
    protocol: dict
    data: dict
    metrics: list[str]
    rows: list[dict]
    reference: str

    @classmethod
    def of(cls, entries, settings, protocol, dataset) -> "Comparison":
        """Gather the scored entries.

        Raises:
            OptionError: they were scored by different protocols or on different data.
        """
        summaries = [summary for entry in entries for summary in entry.scores.values()]
        for what in ("protocol", "data_hash"):
            values = {json.dumps(s["protocol"] if what == "protocol" else s["provenance"][what], sort_keys=True)
                      for s in summaries}
            if len(values) > 1:
                raise OptionError(f"the scores come from different {what.replace('_hash', '')}s and do not belong in "
                                  "one table; score all anew under another --out")
        rows = [row for entry in entries for seed, folder in entry.folders.items()
                for row in _rows(entry.label, seed, folder / "per_image.csv")]
        known = ("label", "seed", "name", "group", "seconds", "tiling")
        metrics = list(dict.fromkeys(key for row in rows for key in row if key not in known))
        names = list(summaries[0]["protocol"]["metrics"])
        metrics = names + [key for key in metrics if key not in names]
        return cls(entries, settings, summaries[0]["protocol"],
                   {"name": dataset.card.name, "hash": dataset.card.hash, "images": len(dataset),
                    "path": str(settings.data)}, metrics, rows, settings.reference or entries[0].label)

    @property
    def first(self) -> str:
        """The metric that ranks."""
        return self.metrics[0]

    def scores(self, label: str, metric: str, group: str | None = None) -> dict[str, float]:
        """A contestant's metric by image, the mean over its seeds."""
        found = {}
        for row in self.rows:
            if row["label"] == label and row.get(metric) is not None and group in (None, row["group"]):
                found.setdefault(row["name"], []).append(row[metric])
        return {name: sum(values) / len(values) for name, values in found.items()}

    def mean(self, label: str, metric: str, group: str | None = None) -> float | None:
        """Over the images, of the means over seeds."""
        values = list(self.scores(label, metric, group).values())
        return sum(values) / len(values) if values else None

    def over_seeds(self, label: str, metric: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation, over seeds, of the mean over images."""
        by_seed = {}
        for row in self.rows:
            if row["label"] == label and row.get(metric) is not None:
                by_seed.setdefault(row["seed"], []).append(row[metric])
        return spread(sum(v) / len(v) for v in by_seed.values()) if by_seed else None

    def difference(self, label: str, metric: str) -> PairedDifference | None:
        """From the reference, paired by image; None for the reference itself."""
        ours, theirs = self.scores(label, metric), self.scores(self.reference, metric)
        if label == self.reference or not set(ours) & set(theirs):
            return None
        return paired_difference(ours, theirs, higher_is_better=higher_is_better(metric))

    def groups(self) -> list[str]:
        """Labels of the images (indoor, outdoor), sorted."""
        return sorted({row["group"] for row in self.rows} - {""})

    def ranked(self) -> list:
        """The entries, best first."""
        sign = -1 if higher_is_better(self.first) else 1
        return sorted(self.entries, key=lambda entry: sign * (self.mean(entry.label, self.first) or 0))


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better; scores that are no registered metric are in dB."""
    if metric in METRICS.names():
        return bool(getattr(METRICS.get(metric), "higher_is_better", True))
    return True


def _rows(label, seed, path):
    known = ("index", "name", "group", "seconds", "tiling", "same_as_whole")
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores = {k: float(v) if v else None for k, v in row.items()
                      if k not in known and not k.startswith("input_")}
            yield {"label": label, "seed": "" if seed is None else seed, "name": row["name"], "group": row["group"],
                   **scores, "seconds": float(row["seconds"]), "tiling": row["tiling"]}
