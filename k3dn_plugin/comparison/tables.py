"""The comparison as results.csv, table.md and table.tex."""
import csv

from k3dn_plugin.comparison.collect import Comparison
from k3dn_plugin.files import atomic_write


def write_tables(comparison: Comparison, folder):
    """Write results.csv (per image), table.csv (a row a contestant), table.md and table.tex."""
    with atomic_write(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        fields = ["label", "seed", "name", "group", *comparison.metrics, "seconds", "tiling", "origin",
                  "protocol", "weights_hash", "data_hash", "device"]
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        known = {(entry.label, "" if seed is None else seed): {
            "origin": entry.origin, "protocol": summary["protocol"]["name"],
            "weights_hash": summary["provenance"]["weights_hash"], "data_hash": summary["provenance"]["data_hash"],
            "device": summary["provenance"]["device"]}
            for entry in comparison.entries for seed, summary in entry.scores.items()}
        for row in comparison.rows:
            writer.writerow({**row, **known[row["label"], row["seed"]]})
    rows = table_rows(comparison)
    with atomic_write(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for name, text in (("table.md", markdown(comparison, rows)), ("table.tex", latex(comparison, rows))):
        with atomic_write(folder / name, "w", encoding="utf-8") as file:
            file.write(text)


def table_rows(comparison: Comparison) -> list[dict]:
    """A row a contestant, best first; cells as text."""
    rows = []
    several = any(len(entry.scores) > 1 for entry in comparison.entries)
    for entry in comparison.ranked():
        row = {"restorer": entry.label, "origin": entry.origin}
        for metric in comparison.metrics:
            row[metric] = _number(comparison.mean(entry.label, metric), 4)
        for group in comparison.groups():
            row[f"{comparison.first} {group}"] = _number(comparison.mean(entry.label, comparison.first, group), 4)
        if several:
            mean = comparison.over_seeds(entry.label, comparison.first)
            row["over seeds"] = "" if mean is None or mean[1] is None else f"{mean[0]:.3f} ± {mean[1]:.3f}"
        difference = comparison.difference(entry.label, comparison.first)
        row[f"against {comparison.reference}"] = "" if difference is None else (
            f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]")
        row["wins : losses (p)"] = "" if difference is None else (
            f"{difference.wins} : {difference.losses} ({difference.p_value:.2g})")
        row["parameters (M)"] = f"{entry.cost['parameters'] / 1e6:.3f}"
        row["MACs (G)"] = f"{entry.cost['macs'] / 1e9:.1f}"
        row["latency (s)"] = f"{entry.cost['latency_seconds']:.4f}"
        row["memory (MiB)"] = f"{entry.cost['memory_bytes'] / 2**20:.0f}"
        run = next(iter(entry.runs.values()), None)
        row["samples/s in training"] = "" if run is None else f"{run['samples_per_second']:.2f}"
        row["samples seen"] = "" if run is None else f"{run['samples_seen']:,}"
        rows.append(row)
    return rows


def facts(comparison: Comparison) -> list[str]:
    """What held for all, in words."""
    settings, protocol = comparison.settings, comparison.protocol
    summary = next(iter(comparison.entries[0].scores.values()))
    place = summary["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    budget = f"{settings.budget.words()}, seeds {', '.join(map(str, settings.seeds))}" if settings.budget else \
        "each recipe's own length" if any(entry.runs for entry in comparison.entries) else "none: weights as they are"
    data = comparison.data
    return [f"Data: {data['name']}, {data['images']} images, hash {data['hash'][:16]}.",
            f"Protocol: {protocol['name']} ({protocol['source']}): {protocol['reading']}; {protocol['size']}; "
            f"{protocol['output']}.",
            f"Training budget: {budget}.",
            f"MACs for one pair of {settings.size[0]} x {settings.size[1]}, all views, one counter; latency and memory "
            f"for {settings.latency_size[0]} x {settings.latency_size[1]} on {place['device']}, median of alternating "
            "rounds; intervals: 95 % bootstrap over images; p: two-sided sign test.",
            f"Versions: {versions}."]


def markdown(comparison: Comparison, rows) -> str:
    """The table as Markdown, to be pasted."""
    fields = list(rows[0])
    lines = ["| " + " | ".join(fields) + " |", "|" + "---|" * len(fields),
             *("| " + " | ".join(row[field] for field in fields) + " |" for row in rows), ""]
    return "\n".join([*lines, *facts(comparison), ""])


def latex(comparison: Comparison, rows) -> str:
    """The main columns as a LaTeX table."""
    fields = ["restorer", *comparison.protocol["metrics"], "parameters (M)", "MACs (G)"]
    lines = [r"\begin{tabular}{l" + "r" * (len(fields) - 1) + "}", r"\hline",
             " & ".join(_escaped(field) for field in fields) + r" \\", r"\hline",
             *(" & ".join(_escaped(row[field]) for field in fields) + r" \\" for row in rows),
             r"\hline", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {line}" for line in facts(comparison)), ""])


def _number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def _escaped(text):
    for character in "\\&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text
