"""The comparison as results.csv, table.csv, table.md and table.tex; and the same rows for the report."""
import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from k3dn_plugin.comparison.collect import Comparison, Entry, higher_is_better, unit
from k3dn_plugin.comparison.statistics import LEVEL, SMALL, Interval, PairedDifference
from k3dn_plugin.files import atomic_write

MIB = 2 ** 20


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, and what stands under the name (unit, which way is better)."""

    name: str
    note: str = ""

    @property
    def title(self) -> str:
        """Name and note in one line."""
        return f"{self.name} ({self.note})" if self.note else self.name


def arrow(metric: str) -> str:
    """Return a metric's unit and which way is better: `dB ↑`."""
    return f"{unit(metric)} {'↑' if higher_is_better(metric) else '↓'}".strip()


def write_tables(comparison: Comparison, folder: Path) -> None:
    """Write results.csv (per image), table.csv (a row a contestant), differences.csv, table.md and table.tex."""
    known = {(entry.label, "" if seed is None else seed): {
        "origin": entry.origin, "protocol": summary["protocol"]["name"],
        "weights_hash": summary["provenance"]["weights_hash"],
        "settings_hash": summary["provenance"]["settings_hash"], "data_hash": summary["provenance"]["data_hash"],
        "device": summary["provenance"]["device"]}
        for entry in comparison.entries for seed, summary in entry.scores.items()}
    fields = ["label", "seed", "name", "group", *comparison.metrics, "seconds", "tiling", "origin", "protocol",
              "weights_hash", "settings_hash", "data_hash", "device"]
    _write_csv(folder / "results.csv", fields, [{**row, **known[row["label"], row["seed"]]} for row in comparison.rows])
    columns, rows = table_rows(comparison)
    _write_csv(folder / "table.csv", [column.name for column in columns], rows)
    others, differences = difference_rows(comparison)
    _write_csv(folder / "differences.csv", [column.name for column in others], differences)
    for name, text in (("table.md", markdown(comparison)), ("table.tex", latex(comparison))):
        with atomic_write(folder / name, "w", encoding="utf-8") as file:
            file.write(text)


def _write_csv(path: Path, fields: Sequence[str], rows: Sequence[Mapping]) -> None:
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(fields), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def table_rows(comparison: Comparison) -> tuple[list[Column], list[dict[str, str]]]:
    """Return the columns, and a row a contestant, best first; cells as text by the column's name."""
    first = comparison.first
    several = any(len(entry.scores) > 1 for entry in comparison.entries)
    columns = [Column("restorer"), Column("origin"), *(Column(metric, arrow(metric)) for metric in comparison.metrics)]
    columns.append(Column("gain over input", arrow(first)))
    columns += [Column(f"{first} {group}", arrow(first)) for group in comparison.groups()]
    columns += [Column("n", "images"), Column("seeds")]
    columns += [Column("seed spread", f"{unit(first)} s.d.".strip())] if several else []
    columns += [Column(f"{metric} 95 %", unit(metric)) for metric in comparison.metrics]
    columns += [Column(f"against {comparison.reference}", f"{unit(first)} 95 %".strip()), Column("wins : losses"),
                Column("p", "corrected"), Column("finding")]
    columns += [Column("parameters", "M ↓"), Column("MACs", "G ↓"), Column("latency", "s ↓"),
                Column("latency range", "s"), Column("memory", "MiB ↓"), Column("memory range", "MiB"),
                Column("training speed", "samples/s ↑"), Column("samples seen"), Column("iterations")]
    return columns, [_row(comparison, entry, several) for entry in comparison.ranked()]


def _row(comparison: Comparison, entry: Entry, several: bool) -> dict[str, str]:
    first = comparison.first
    row = {"restorer": entry.label, "origin": entry.origin}
    for metric in comparison.metrics:
        interval = comparison.interval(entry.label, metric)
        row[metric] = "" if interval is None else f"{interval.mean:.4f}"
        row[f"{metric} 95 %"] = "" if interval is None else _ends(interval, 3 if unit(metric) else 4)
    row["gain over input"] = _number(comparison.gain(entry.label, first), "+.4f")
    for group in comparison.groups():
        row[f"{first} {group}"] = _number(comparison.mean(entry.label, first, group), ".4f")
    interval = comparison.interval(entry.label, first)
    row["n"], row["seeds"] = str(interval.images if interval else 0), str(len(entry.scores))
    if several:
        mean = comparison.over_seeds(entry.label, first)
        row["seed spread"] = "" if mean is None or mean[1] is None else f"{mean[1]:.4f}"
    difference = comparison.difference(entry.label, first)
    row[f"against {comparison.reference}"] = "" if difference is None else shown_difference(difference, 3)
    row["wins : losses"] = "" if difference is None else f"{difference.wins} : {difference.losses}"
    row["p"] = "" if difference is None or difference.identical else f"{difference.adjusted:.2g}"
    row["finding"] = "" if difference is None else finding(difference, first)
    cost, runs = entry.cost, list(entry.runs.values())
    row["parameters"], row["MACs"] = f"{cost['parameters'] / 1e6:.3f}", f"{cost['macs'] / 1e9:.1f}"
    row["latency"], row["memory"] = f"{cost['latency_seconds']:.4f}", f"{cost['memory_bytes'] / MIB:.0f}"
    row["latency range"] = f"{min(cost['latencies']):.4f} to {max(cost['latencies']):.4f}"
    row["memory range"] = f"{min(cost['memories']) / MIB:.0f} to {max(cost['memories']) / MIB:.0f}"
    row["training speed"] = _each(f"{run['samples_per_second']:.2f}" for run in runs)
    row["samples seen"] = _each(f"{run['samples_seen']:,}" for run in runs)
    row["iterations"] = _each(f"{run['iterations']:,}" for run in runs)
    return row


def difference_rows(comparison: Comparison) -> tuple[list[Column], list[dict[str, str]]]:
    """Return the columns, and a row a rival and metric: its difference from the reference with all that is known."""
    columns = [Column("restorer"), Column("metric"), Column("difference"), Column("95 %"), Column("interval by"),
               Column("n", "images"), Column("seeds"), Column("wins : losses : ties"), Column("p"),
               Column("p corrected", "Holm"), Column("test"), Column("finding")]
    rows = []
    for entry in comparison.ranked():
        for metric in comparison.metrics:
            one = comparison.difference(entry.label, metric)
            if one is None:
                continue
            digits = 3 if unit(metric) else 4
            rows.append({
                "restorer": entry.label, "metric": metric, "difference": f"{one.mean:+.{digits}f}",
                "95 %": _ends(one.interval, digits, sign=True), "interval by": one.interval.kind,
                "n": str(one.interval.images), "seeds": " and ".join(map(str, one.interval.seeds)),
                "wins : losses : ties": f"{one.wins} : {one.losses} : {one.ties}",
                "p": "" if one.identical else f"{one.p_value:.2g}",
                "p corrected": "" if one.identical else f"{one.adjusted:.2g}",
                "test": {"sign": "sign test over images", "t": "t test over seeds and images"}[one.test],
                "finding": finding(one, metric)})
    return columns, rows


def finding(difference: PairedDifference, metric: str) -> str:
    """Return what may be said of a contestant against the reference, in words."""
    if difference.identical:
        return "identical weights and settings"
    if opposed(difference, metric):
        most = "better" if difference.wins > difference.losses else "worse"
        return f"{most} on most images, not in the mean (for these weights)"
    words = "no difference shown"
    if difference.different:
        better = (difference.mean > 0) == higher_is_better(metric)
        words = "better" if better else "worse"
    if difference.disagrees:
        words += (", though the interval contains 0" if difference.different
                  else ", though the interval excludes 0")
    return f"{words} ({'as a method' if difference.of_methods() else 'for these weights'})"


def opposed(difference: PairedDifference, metric: str) -> bool:
    """Whether the sign test finds one way what a few large differences turn round in the mean."""
    better = (difference.mean > 0) == higher_is_better(metric)
    return difference.different and difference.test == "sign" and better != (difference.wins > difference.losses)


def shown_difference(difference: PairedDifference, digits: int) -> str:
    """Return `+0.123 [+0.045, +0.201]`."""
    return f"{difference.mean:+.{digits}f} {_ends(difference.interval, digits, sign=True)}"


def _ends(interval: Interval, digits: int, *, sign: bool = False) -> str:
    if math.isnan(interval.low):
        return "[one image: no interval]"
    form = f"{'+' if sign else ''}.{digits}f"
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def facts(comparison: Comparison) -> list[str]:
    """Return what held for all, in words."""
    settings, protocol = comparison.settings, comparison.protocol
    summary = next(iter(comparison.entries[0].scores.values()))
    place = summary["provenance"]
    packages = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    trained = [entry for entry in comparison.entries if entry.runs]
    budget = f"{settings.budget.words()}, seeds {', '.join(map(str, settings.seeds))}" if settings.budget else \
        "each recipe's own length" if trained else "none: weights as they are"
    data = comparison.data
    rivals = sum(not one.identical for one in comparison.differences(comparison.first).values())
    lines = [
        f"Data: {data['name']}, {data['images']} images, hash {data['hash'][:16]}.",
        f"Protocol: {protocol['name']} ({protocol['source']}): {protocol['reading']}; {protocol['size']}; "
        f"{protocol['output']}." + (f" Light: {protocol['light']}." if protocol.get("light") else ""),
        f"Training budget: {budget}."]
    if trained:
        lines.append("Scored of each training: the last weights (their moving average where one is kept). None were "
                     "chosen by a score on these images.")
    lines += [
        f"Intervals: {LEVEL:.0%}, of the mean over seeds and images, by a two-level bootstrap that draws both anew "
        "(Student's t where there are few of either). With one seed a finding holds for these weights, not for the "
        f"method. p: sign test over images with one seed each, t test over seeds and images with several; corrected "
        f"for {rivals} rival{'s' if rivals != 1 else ''} (Holm). A finding is stated below p = 0.05.",
        f"MACs for one pair of {settings.size[0]} x {settings.size[1]}, all views, one counter; latency (median) and "
        f"memory (most) for {settings.latency_size[0]} x {settings.latency_size[1]} on {place['device']}, with their "
        "range over alternating rounds."]
    lines += warnings_of(comparison)
    return [*lines, f"Versions: {packages}."]


def warnings_of(comparison: Comparison) -> list[str]:
    """Return what a reader has to be warned of."""
    found = []
    if comparison.data["images"] < SMALL:
        found.append(f"Warning: only {comparison.data['images']} images. The intervals are wide for that reason, and "
                     "the sign test finds nothing below 6 images.")
    for entry in comparison.entries:
        if entry.chosen_on == comparison.data["hash"]:
            found.append(f"Warning: the weights of {entry.label} were chosen by their scores on these very images; "
                         "their scores are too good.")
    disagreeing = [label for label, one in comparison.differences(comparison.first).items()
                   if one.disagrees or opposed(one, comparison.first)]
    if disagreeing:
        found.append(f"Interval and test disagree for {', '.join(disagreeing)}: take neither for a finding.")
    identical = [label for label, one in comparison.differences(comparison.first).items() if one.identical]
    if identical:
        found.append(f"{', '.join(identical)}: the very weights and settings of {comparison.reference}; nothing is "
                     "compared.")
    return found


def markdown(comparison: Comparison) -> str:
    """Return the table as Markdown, to be pasted."""
    columns, rows = table_rows(comparison)
    table = tabulate([[escaped_markdown(row[column.name]) for column in columns] for row in rows],
                     [escaped_markdown(column.title) for column in columns], tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([table, *(escaped_markdown(line) for line in facts(comparison))]) + "\n"


def latex(comparison: Comparison) -> str:
    """Return the main columns as a LaTeX table."""
    columns, rows = table_rows(comparison)
    wanted = ["restorer", *comparison.protocol["metrics"], "gain over input", "parameters", "MACs"]
    chosen = [column for column in columns if column.name in wanted]
    table = tabulate([[escaped_latex(row[column.name]) for column in chosen] for row in rows],
                     [escaped_latex(column.title) for column in chosen], tablefmt="latex_raw", disable_numparse=True,
                     colalign=["left", *["right"] * (len(chosen) - 1)])
    return "\n".join([table, *(f"% {' '.join(line.split())}" for line in facts(comparison)), ""])


def escaped_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    text = " ".join(str(text).split())
    text = re.sub(r"([\\`*\[\]<>|~$#])", r"\\\1", text)
    # Underscores within words mean nothing to Markdown, at their ends they do.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
         "|": r"\textbar{}", '"': r"\textquotedbl{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$"}


def escaped_latex(text: str) -> str:
    """Return a text that LaTeX sets as it is, in one line."""
    return "".join(LATEX.get(mark, mark) for mark in " ".join(str(text).split()))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _each(texts: Iterable[str]) -> str:
    """One text where all are alike, else all of them."""
    texts = list(texts)
    return "" if not texts else texts[0] if len(set(texts)) == 1 else " / ".join(texts)
