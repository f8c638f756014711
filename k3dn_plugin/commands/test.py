"""Score a trained network.

    k3dn test -opt k3dn_demo

Takes the best weights of the recipe's run (or --weights FILE), restores every frame of the validation set
(or --data STORE) and scores it by a named protocol. The results folder gets per_image.csv, summary.json
(means, protocol, provenance) and pictures/. A killed evaluation goes on where it stopped.
Several devices share the images, and write one result:
    k3dn test -opt k3dn_dpdd --devices cuda:0 cuda:1
    torchrun --nproc_per_node 4 --no-python k3dn test -opt k3dn_dpdd --launcher pytorch
"""
import argparse
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from k3dn_plugin.commands._devices import run_on_devices
from k3dn_plugin.commands._inference import add_inference_arguments, load_as_asked
from k3dn_plugin.commands._numbers import whole

if TYPE_CHECKING:
    from k3dn_plugin.evaluation.results import EvaluationResult
    from k3dn_plugin.training.distributed import ProcessGroup

GROUP = "restorers"
WAIT = timedelta(days=7)   # for the slowest process: restoring a share may take hours


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    if arguments.devices:
        return run_on_devices(run, arguments)
    from k3dn_plugin.training.distributed import launched  # torch takes seconds, and --help should not
    with launched(arguments.launcher, arguments.device, "gloo", timeout=WAIT) as group:
        if arguments.launcher != "none":
            arguments.device = str(group.device)
        return score(arguments, group)


def score(arguments: argparse.Namespace, group: "ProcessGroup") -> int:
    """Score as one of the processes of a group; the first one reports."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.errors import OptionError
    from k3dn_plugin.evaluation.diagnostics import without_truth
    from k3dn_plugin.evaluation.run import evaluate_weights, names_in, scored_dataset, trained_weights, usual_protocol
    from k3dn_plugin.options import load_options
    from k3dn_plugin.registry import MAP_METRICS, PROTOCOLS

    if arguments.opt is None and arguments.weights is None:
        raise OptionError("what shall be scored? Give -opt FILE (the recipe of a run) or --weights FILE")
    if arguments.set and arguments.opt is None:
        raise OptionError("--set changes an option file: give -opt FILE too")
    options = load_options(arguments.opt, arguments.set) if arguments.opt else None
    # BasicSR names the weights to be tested by this option.
    named = next((text.partition("=")[2] for text in reversed(arguments.set)
                  if text.startswith("path.pretrain_network_g=")), None)
    weights = arguments.weights or named
    if not weights:
        assert options is not None  # one of the two is given, see above
        weights = trained_weights(options)
    loaded = load_as_asked(weights, arguments)
    dataset = scored_dataset(options, arguments.data)
    spec = {"type": arguments.protocol or (options.val.protocol if options else usual_protocol(dataset))}
    if arguments.metrics:
        spec["extra_metrics"] = names_in(arguments.metrics)
    protocol = PROTOCOLS.build(spec)
    diagnostics, map_metrics = names_in(arguments.diagnostics), names_in(arguments.map_metrics)
    card = getattr(dataset, "card", None)
    if card is not None and not card.truth and not diagnostics and not map_metrics:
        diagnostics = tuple(without_truth())
        if group.is_main:
            print(f"{card.name} has no truth; scores that need none: {', '.join(diagnostics)}"
                  + (f" (and --map-metrics {','.join(MAP_METRICS.names())} for its maps)" if card.maps else ""),
                  flush=True)
    name = options.name if options else loaded.name
    out_dir = Path(arguments.out) if arguments.out else Path("results") / name / protocol.name
    if group.is_main:
        shared = f", shared by {group.size} processes" if group.size > 1 else ""
        print(f"scoring {weights} on {len(dataset)} images by {protocol.name}{shared}; results in {out_dir}",
              flush=True)
    result = evaluate_weights(
        loaded, dataset, protocol, out_dir=out_dir, fresh=arguments.fresh, group=group,
        diagnostics=diagnostics, map_metrics=map_metrics,
        save_pictures=arguments.save_pictures, progress=arguments.progress)
    if group.is_main:
        report(result, out_dir)
    return 0


def report(result: "EvaluationResult", out_dir: Path) -> None:
    """Print the means, and what a reader should know about them."""
    if result.damaged:
        print(f"{result.damaged} rows had been changed since they were written, and were computed again")
    if result.kept:
        print(f"{result.kept} of {len(result.rows)} images had been scored before with the same weights, "
              "data and protocol, and were not computed again (--fresh does)")
    print(result.table())
    summary = result.summary()
    if summary["tiling_changes_result"]:
        print("note: some frames were restored in tiles, which changes this network's result a little "
              "(column same_as_whole); raise --max-memory-gb or --tile for whole frames")
    for picture in result.pictures[:1]:
        print(f"{len(result.pictures)} pictures, the first: {picture}")
    print(f"per image: {out_dir / 'per_image.csv'}   summary: {out_dir / 'summary.json'}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-opt", metavar="FILE", help="option file of the run")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="change an option")
    parser.add_argument("--weights", metavar="FILE", help="ours or a published checkpoint; default: the run's best; "
                             "`center` scores the blurred center view as it is")
    parser.add_argument("--data", metavar="STORE", help="prepared store; default: the recipe's datasets.val")
    parser.add_argument("--protocol", metavar="NAME",
                        help="default: the recipe's val.protocol; without a recipe, the one usual for the data")
    parser.add_argument("--metrics", metavar="NAMES", help="further metrics, separated by commas")
    parser.add_argument("--diagnostics", metavar="NAMES", default="",
                        help="further scores, by commas: blur_bins, disparity_bins, preservation, view_swap, reblur")
    parser.add_argument("--map-metrics", metavar="NAMES", default="",
                        help="scores of the predicted disparity or defocus map against the known one, by commas: ai1, "
                             "ai2, spearman")
    parser.add_argument("--out", metavar="DIR", help="default: results/<name>/<protocol>")
    parser.add_argument("--save-pictures", type=whole(), default=4, metavar="N", help="comparison pictures (4)")
    parser.add_argument("--fresh", action="store_true", help="score again what has been scored")
    add_inference_arguments(parser)
    parser.add_argument("--devices", nargs="+", metavar="NAME", help="share the images among a process on each of "
                        "these (cuda:0 cuda:1, or cpu cpu)")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none",
                        help="this is one of several processes that torchrun or srun has started")
