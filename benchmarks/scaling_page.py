"""Write docs/scaling.md from what `comparison_cost.py` and `store_readers.py` have counted and measured.

The text is `scaling.md.j2`; its numbers come from the CSV files in `benchmarks/results` and from the constants here.

    python benchmarks/scaling_page.py
"""
import sys
from pathlib import Path

import jinja2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.comparison_cost import BYTES, FRAME, PAGE, TEST_FRAMES, TRAIN_FRAMES, VIEWS  # noqa: E402
from benchmarks.table import RESULTS, rows_of  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402
from k3dn_plugin.files import atomic_write  # noqa: E402

TARGET = ROOT / "docs" / "scaling.md"
# What is assumed of a cluster, beside the GPU's rate that comparison_cost.py was given.
GPUS, NODES, LOADERS = 8, 2, 8          # GPUs of the cluster, its nodes, loader processes for each GPU
ROUND_TRIP, NETWORK = 0.5e-3, 1e9       # seconds; bytes a second and node
READ_AHEAD, CROP = 128 * 1024, 256      # bytes that Linux reads around a page fault; side of a crop


def main(argv=None):
    with atomic_write(TARGET, "w", encoding="utf-8") as file:
        file.write(page())
    print(f"written to {TARGET}")


def page(results=RESULTS):
    """The page's text."""
    template = Path(__file__).with_name("scaling.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    cost, readers = (rows_of(results / f"{name}.csv") for name in ("comparison_cost", "store_readers"))
    return environment.from_string(template).render(**constants(), **costs(cost), **simulated(readers), **derived(cost))


def constants():
    return {"gpus": GPUS, "nodes": NODES, "loaders": LOADERS, "round_trip": 1000 * ROUND_TRIP, "network": NETWORK / 1e9,
            "views": VIEWS, "rows": FRAME[0], "columns": FRAME[1], "crop": CROP, "page": PAGE,
            "read_ahead": READ_AHEAD // 1024, "test_frames": TEST_FRAMES}


def costs(rows):
    hours, scoring = (sum(float(row[key]) for row in rows) for key in ("training_hours", "scoring_hours"))
    seeds = int(rows[0]["seeds"])
    total = seeds * (hours + scoring)
    longest, most = (max(rows, key=lambda row: float(row[key])) for key in ("training_hours", "pages_MB_per_second"))
    return {"restorers": len(rows), "rate": rows[0]["hours_from"], "seeds": seeds, "hours": f"{hours:,.0f}",
            "total": f"{total:,.0f}", "days_of_one": f"{total / 24:,.1f}", "days_of_all": f"{total / 24 / GPUS:,.1f}",
            "longest": longest, "most": most, **{f"mean_{key}": f"{mean(rows, f'{key}_MB_per_second'):.0f}"
                                                 for key in ("crops", "pages")},
            "cost_table": table(rows, ("recipe", "samples", "training_PMACs", "frame_GMACs", "training_hours",
                                       "hours_of_all_seeds", "scoring_hours")),
            "reading_table": table(rows, ("recipe", "samples_per_second", "crops_MB_per_second",
                                          "pages_MB_per_second"))}


def simulated(rows):
    warm = {int(row["processes"]): row for row in rows if row["cache"] == "warm"}
    return {"processes": max(warm), "wrong": sum(int(row["wrong"]) for row in rows), "one": warm[min(warm)],
            "many": warm[max(warm)], "reads": f"{sum(int(row['samples']) for row in rows):,}",
            "reader_seconds": f"{float(rows[0]['seconds']):g}",
            "reader_command": " ".join(map(str, sorted(warm))),
            "reader_table": table(rows, ("cache", "processes", "samples", "wrong", "samples_per_second", "median_ms",
                                         "p95_ms", "first_looks", "first_cpu_ms", "later_cpu_ms", "crop_MB",
                                         "disk_MB", "faults"))}


def derived(rows):
    """What the table of the last section says."""
    scene = VIEWS * FRAME[0] * FRAME[1] * BYTES
    store, together = TRAIN_FRAMES * scene, max(READ_AHEAD // (FRAME[1] * BYTES), 1)
    requests = VIEWS * -(-CROP // together)
    read, rate = requests * READ_AHEAD, mean(rows, "samples_per_second")
    uncached, latency = GPUS // NODES * rate * read, requests * ROUND_TRIP
    return {"scene_MB": f"{scene / 1e6:.1f}", "store_GB": f"{store / 1e9:.1f}",
            "test_GB": f"{TEST_FRAMES * scene / 1e9:.1f}", "copy_seconds": f"{store / NETWORK:.0f}",
            "uncached_MB": f"{uncached / 1e6:,.0f}", "uncached_share": f"{100 * uncached / NETWORK:.0f}",
            "requests": requests, "latency": f"{1000 * latency:.0f}", "row_bytes": f"{FRAME[1] * BYTES:,}",
            "rows_together": together, "read_MB": f"{read / 1e6:.1f}", "needed": f"{rate:.0f}",
            "fetched": f"{LOADERS / (latency + read / NETWORK):.0f}",
            "used_MB": f"{VIEWS * CROP * CROP * BYTES / 1e6:.1f}",
            "checked_GB": f"{GPUS * LOADERS * store / 1e9:,.0f}", "readers": GPUS * LOADERS}


def mean(rows, key):
    return sum(float(row[key]) for row in rows) / len(rows)


def table(rows, fields):
    head = ["| " + " | ".join(field.replace("_", " ") for field in fields) + " |", "|" + "---|" * len(fields)]
    return "\n".join([*head, *("| " + " | ".join(
        f"{int(row[field]):,}" if field == "samples" else row[field] for field in fields) + " |" for row in rows)])


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
