"""One piece of work of a comparison, in a process of its own: `python -m k3dn_plugin.comparison.worker SPEC`.

SPEC is a JSON file: {"work": "train" | "score", ...}. What is done is kept, so a killed worker's piece goes on
where it stopped when it is started again; `done.json` beside the results says that it is finished.
"""
import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from k3dn_plugin.comparison.pictures import save_scene_pictures
from k3dn_plugin.errors import run_tool
from k3dn_plugin.evaluation.results import write_json
from k3dn_plugin.evaluation.run import evaluate_weights, scored_dataset
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.training import train
from k3dn_plugin.zoo.load import load_restorer

WATCH_SECONDS = 0.5


def main(argv=None):
    path = Path((argv or sys.argv[1:])[0])
    spec = json.loads(path.read_text(encoding="utf-8"))
    threading.Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    with _alone(path.parent):
        {"train": train_one, "score": score_one}[spec["work"]](spec)


def _stop_with(parent):
    """Ask this process to stop, as Ctrl-C would, when the comparison that started it is no more."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _alone(folder):
    """Wait until no other worker is at this piece: one of a killed comparison may still be saving its state."""
    try:
        import fcntl  # not on Windows
    except ImportError:  # Windows
        yield
        return
    with open(folder / "worker.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def train_one(spec):
    """Train `recipe`, resuming; `done` gets what the report says of training."""
    options = load_options(spec["recipe"])
    result = train(options, resume="auto", device=spec["device"])
    if not result.finished:
        raise SystemExit(128 + result.stopped_by)
    write_json(spec["done"], {
        "weights": str(result.best_weights or result.last_weights), "iterations": result.iterations,
        "samples_seen": result.samples_seen, "training_seconds": result.seconds,
        "samples_per_second": result.samples_seen / max(result.seconds, 1e-9), "history": result.history})


def score_one(spec):
    """Score `weights`, resuming, and keep pictures of some scenes; `done` gets the summary."""
    options = load_options(spec["recipe"]) if spec.get("recipe") else None  # for its custom imports
    dataset = scored_dataset(None, spec["data"])
    protocol = PROTOCOLS.build({"type": spec["protocol"], "extra_metrics": tuple(spec["metrics"])})
    folder = Path(spec["folder"])
    loaded = load_restorer(spec["weights"], device=spec["device"], max_memory_gb=spec["max_memory_gb"])
    result = evaluate_weights(loaded, dataset, protocol, out_dir=folder, diagnostics=spec["diagnostics"])
    save_scene_pictures(loaded, dataset, protocol, spec["scenes"], folder / "scenes")
    write_json(spec["done"], {**result.summary(), "recipe": options.name if options else None})


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
