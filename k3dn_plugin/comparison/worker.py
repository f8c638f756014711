"""One job of a comparison, in a process of its own: `python -m k3dn_plugin.comparison.worker SPEC`.

SPEC is the JSON file that `Job.write_spec` made. What is done is kept, so a killed worker's job goes on where it
stopped when it is started again; the file `done` says that it is finished.
"""
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from k3dn_plugin.comparison.budget import samples_seen
from k3dn_plugin.comparison.jobs import write_result
from k3dn_plugin.comparison.pictures import save_scene_pictures
from k3dn_plugin.errors import K3DNError
from k3dn_plugin.evaluation.run import evaluate_weights, scored_dataset
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.training import train
from k3dn_plugin.zoo.load import load_restorer

WATCH_SECONDS = 0.5


def main(argv: Sequence[str] | None = None) -> None:
    """Do the job of the spec file named by the only argument."""
    path = Path((argv or sys.argv[1:])[0])
    spec = json.loads(path.read_text(encoding="utf-8"))
    threading.Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    with _alone(path.parent):
        {"train": train_one, "score": score_one}[spec["kind"]](spec)


def _stop_with(parent: int) -> None:
    """Ask this process to stop, as Ctrl-C would, when the comparison that started it is no more."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other worker is at this job: one of a killed comparison may still be saving its state."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    handle = os.open(folder / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def train_one(spec: dict) -> None:
    """Train `recipe`, resuming; the result is what the report says of training.

    The weights to score are the last ones (their moving average where one is kept): the best ones were chosen by their
    scores in validation, which may be the very set that is scored.
    """
    options = load_options(spec["recipe"])
    result = train(options, resume="auto", device=spec["device"])
    if not result.finished:
        raise SystemExit(128 + result.stopped_by)
    folder = Path(os.path.abspath(spec["recipe"])).parent
    weights = Path(os.path.abspath(result.last_weights))
    history = [{**row, "samples": samples_seen(options, row["iteration"])} for row in result.history]
    write_result(spec, folder, {
        "weights": weights.relative_to(folder).as_posix(), "iterations": result.iterations,
        "samples_seen": result.samples_seen, "training_seconds": result.seconds,
        "samples_per_second": result.samples_seen / max(result.seconds, 1e-9), "history": history}, [weights])


def score_one(spec: dict) -> None:
    """Score `weights`, resuming, and keep pictures of some scenes; the result is the summary."""
    options = load_options(spec["recipe"]) if spec.get("recipe") else None  # for its custom imports
    dataset = scored_dataset(None, spec["data"])
    protocol = PROTOCOLS.build({"type": spec["protocol"], "extra_metrics": tuple(spec["metrics"])})
    folder = Path(spec["folder"])
    loaded = load_restorer(spec["weights"], device=spec["device"], max_memory_gb=spec["max_memory_gb"])
    result = evaluate_weights(loaded, dataset, protocol, out_dir=folder, diagnostics=spec["diagnostics"])
    pictures = save_scene_pictures(loaded, dataset, protocol, spec["scenes"], folder / "scenes", key=spec["key"])
    write_result(spec, folder, {**result.summary(), "recipe": options.name if options else None},
                 [folder / "per_image.csv", folder / "per_image.identity.json", *pictures])


def run() -> int:
    """Do the job and return the process's exit status; what goes wrong is one line in the log."""
    try:
        main()
        return 0
    except K3DNError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(run())
