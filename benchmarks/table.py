"""What the benchmarks share: printing rows, writing them with where they were measured."""
import contextlib
import csv
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from k3dn_plugin.files import atomic_write

RESULTS = Path(__file__).resolve().parent / "results"   # what docs/benchmarks.md is generated from


def show(rows):
    """Print rows, dictionaries with the same keys, as an aligned table."""
    fields = list(rows[0])
    table = [fields, *([str(row[field]) for field in fields] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(fields))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def save(rows, path, *, device=None, packages=("torch", "numpy")):
    """Write the rows with device, cores and versions as a CSV file, whole or not at all."""
    place = {"device": device or processor(), "cores": cores(),
             "python": platform.python_version(),
             **{name: metadata.version(name) for name in packages}}
    path = Path(path)
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *place])
        writer.writeheader()
        writer.writerows({**row, **place} for row in rows)
    print(f"written to {path}")


def rows_of(path):
    """Return the rows of a CSV file as dictionaries."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(fields, rows):
    """Return the lines of a Markdown table of some fields of rows, an underscore in a title as a space."""
    return ["| " + " | ".join(field.replace("_", " ") for field in fields) + " |", "|" + "---|" * len(fields),
            *("| " + " | ".join(row[field] for field in fields) + " |" for row in rows)]


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def busy():
    """Return the machine's load average of the last minute; warn where it leaves no core for a measurement."""
    load = round(os.getloadavg()[0], 1)
    if load > cores():
        print(f"warning: load {load} on {cores()} cores; wall times are those of a busy machine, compare CPU time and "
              "ratios", file=sys.stderr)
    return load


def processor():
    """The processor's name where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
