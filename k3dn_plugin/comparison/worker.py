"""One job of a comparison, in a process of its own: `python -m k3dn_plugin.comparison.worker SPEC [PARENT]`.

SPEC is the JSON file that `Job.write_spec` made, PARENT the process that started the worker: when that is no more, the
worker stops, as after Ctrl-C. What is done is kept, so a killed worker's job goes on where it stopped when it is
started again; the file `done` says that it is finished.
"""
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k3dn_plugin.comparison.budget import samples_seen, seconds_of_steps
from k3dn_plugin.comparison.jobs import alone, write_result
from k3dn_plugin.comparison.pictures import save_scene_pictures
from k3dn_plugin.console import stop_with
from k3dn_plugin.errors import K3DNError
from k3dn_plugin.evaluation.measure import measure_restorers
from k3dn_plugin.evaluation.results import write_json
from k3dn_plugin.evaluation.run import evaluate_weights, scored_dataset
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.training import train
from k3dn_plugin.training.stages import plan_stages
from k3dn_plugin.zoo.load import load_restorer


def main(argv: Sequence[str] | None = None, kinds: Mapping[str, Callable[[dict], None]] | None = None) -> None:
    """Do the job of the spec file named by the first argument.

    Args:
        kinds: what does a job of each kind; None for those of a comparison.
    """
    arguments = argv or sys.argv[1:]
    path, parent = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else os.getppid()
    stop_with(parent)
    with alone(path.parent):
        # Read now: while this worker waited, another comparison may have changed what is to be done.
        spec = json.loads(path.read_text(encoding="utf-8"))
        write_json(path.with_name(f"{spec['kind']}.place.json"), {
            "host": socket.gethostname(), "node": os.environ.get("K3DN_NODE", ""), "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        (kinds or KINDS)[spec["kind"]](spec)


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


def measure(spec: dict) -> None:
    """Measure the cost of all restorers in turns, on one machine; the result has them by label."""
    for recipe in spec["recipes"]:
        load_options(recipe)  # for its custom imports
    restorers = {label: load_restorer(weights, device="cpu").restorer for label, weights in spec["weights"].items()}
    costs = measure_restorers(restorers, size=spec["size"], latency_size=spec["latency_size"], device=spec["device"])
    write_result(spec, Path(spec["done"]).parent, {"costs": costs}, [])


def measure_steps(spec: dict) -> None:
    """Measure the seconds of a recipe's training iterations, by stage and phase."""
    options = load_options(spec["recipe"])
    seconds = seconds_of_steps(plan_stages(options), spec["device"], amp=options.training.amp)
    write_result(spec, Path(spec["done"]).parent, {"seconds": seconds}, [])


KINDS = {"train": train_one, "score": score_one, "measure": measure, "steps": measure_steps}


def run(kinds: Mapping[str, Callable[[dict], None]] | None = None) -> int:
    """Do the job and return the process's exit status; what goes wrong is one line in the log."""
    try:
        main(kinds=kinds)
        return 0
    except K3DNError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(run())
