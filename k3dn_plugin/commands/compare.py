r"""Compare restorers: scores, cost, statistics and an HTML report, from one command that can be interrupted.

    k3dn compare center a.safetensors b.pth --data datasets/dpdd/test.lmdb        # existing weights
    k3dn compare options/k3dn_demo.yml options/drbnet_demo.yml --train --budget samples=2400 --seeds 1 2
    k3dn compare options/k3dn_demo.yml --matrix --choices deblur=KernelSetDeblur,WienerDeblur \
        preservation=ConcatSkip,SharpRegionPreservation --budget samples=2400

    k3dn compare restormer_dpdd k3dn_dpdd --train --cluster auto --devices cuda   # on a Ray cluster

Without --train, an option file stands for the weights of its run. Run the same command again to go on.
"""
import argparse
import functools
from pathlib import Path

from k3dn_plugin.commands._cluster import add_cluster_argument, cluster_backend
from k3dn_plugin.commands._numbers import number, whole

GROUP = "restorers"


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.comparison.budget import Budget
    from k3dn_plugin.comparison.compare import compare
    from k3dn_plugin.comparison.contestants import contestants_of
    from k3dn_plugin.comparison.matrix import matrix_of, parse_choices
    from k3dn_plugin.comparison.settings import Settings
    from k3dn_plugin.errors import OptionError
    from k3dn_plugin.evaluation.run import names_in
    from k3dn_plugin.options import load_options

    check_meaning(arguments)
    if arguments.matrix:
        if len(arguments.entries) != 1:
            raise OptionError("--matrix takes one option file, the base recipe")
        contestants = matrix_of(arguments.entries[0], parse_choices(arguments.choices), arguments.set)
    else:
        contestants = contestants_of(arguments.entries, train=arguments.train, overrides=arguments.set)
    if arguments.set and not any(one.recipe for one in contestants):
        raise OptionError("--set changes option files, and none is compared: leave it out, or name an option file")
    blocks = (load_options(c.recipe, c.overrides).datasets.val for c in contestants if c.recipe)
    data = arguments.data or next((block.arguments().get("store") for block in blocks if block is not None), None)
    if data is None:
        raise OptionError("what shall be scored on? Give --data STORE")
    # At once, also into a pipe or a file: a comparison takes long.
    log = functools.partial(print, flush=True)
    settings = Settings(
        out=arguments.out, data=data, protocol=arguments.protocol,
        budget=Budget.parse(arguments.budget) if arguments.budget else None, seeds=tuple(arguments.seeds or [1]),
        jobs=arguments.jobs, devices=tuple(arguments.devices), cpus=arguments.cpus_per_job,
        reference=arguments.reference,
        size=tuple(arguments.size), latency_size=tuple(arguments.latency_size), scenes=arguments.scenes,
        max_memory_gb=arguments.max_memory_gb, published=arguments.published,
        metrics=names_in(arguments.metrics),
        diagnostics=names_in(arguments.diagnostics))
    with cluster_backend(arguments.cluster) as backend:
        report = compare(contestants, log=log, settings=settings, backend=backend)
    print((arguments.out / "table.md").read_text(encoding="utf-8"))
    print(f"report: {report}")
    return 0


def check_meaning(arguments: argparse.Namespace) -> None:
    """Raise `OptionError` for an argument that nothing would come of: whoever gives it expects something else."""
    from k3dn_plugin.errors import OptionError  # as in `run`
    if arguments.choices and not arguments.matrix:
        raise OptionError("--choices says what --matrix combines: give --matrix too, or leave it out")
    for name in ("budget", "seeds"):
        if getattr(arguments, name) and not (arguments.train or arguments.matrix):
            raise OptionError(f"--{name} is for trainings, and none is asked for: give --train too, or leave it out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("entries", nargs="+", metavar="[LABEL=]ENTRY", help="an option file, a weights file "
                        "(ours or a published one), a name of `k3dn list --weights`, or `center`: the blurred center "
                        "view as it is")
    parser.add_argument("--train", action="store_true", help="train the option files, then score")
    parser.add_argument("--budget", metavar="KIND=N", help="equal training for all: samples=, iterations=, macs= or "
                        "seconds=; without it each recipe trains for its own length")
    parser.add_argument("--seeds", nargs="+", type=whole(), metavar="N", help="one training each (default 1)")
    parser.add_argument("--matrix", action="store_true", help="train every combination of --choices in one recipe")
    parser.add_argument("--choices", nargs="+", default=[], metavar="SLOT=A,B", help="for --matrix: "
                        "disparity, deblur, preservation of K3DN, blur_map of LDP, reblur; `none` leaves a part out, "
                        "`default` keeps the recipe's")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
                        help="change an option of every option file")
    parser.add_argument("--data", metavar="STORE", help="default: the first option file's datasets.val")
    parser.add_argument("--protocol", metavar="NAME", help="default: the data's usual one")
    parser.add_argument("--metrics", default="", metavar="NAMES", help="further metrics, separated by commas")
    parser.add_argument("--diagnostics", default="", metavar="NAMES",
                        help="further scores, by commas: blur_bins, disparity_bins, preservation, view_swap, reblur")
    parser.add_argument("--reference", metavar="LABEL", help="whom the others are compared with; default: the first")
    parser.add_argument("--out", type=Path, default=Path("results/comparison"), metavar="DIR")
    parser.add_argument("--jobs", type=whole(1), default=1, metavar="N", help="processes at a time on this machine")
    parser.add_argument("--devices", nargs="+", default=["cpu"], metavar="NAME",
                        help="cpu, or cuda:0 cuda:1 ...; with --cluster cpu, or cuda for one GPU a job")
    add_cluster_argument(parser)
    parser.add_argument("--cpus-per-job", type=whole(1), metavar="N", help="threads of a job, and what a cluster keeps "
                        "free for it; default: this machine's shared among --jobs, or 1 on a cluster")
    parser.add_argument("--size", nargs=2, type=whole(1), default=(1120, 1680), metavar=("ROWS", "COLUMNS"),
                        help="of the pair whose MACs are counted")
    parser.add_argument("--latency-size", nargs=2, type=whole(1), default=(256, 256), metavar=("ROWS", "COLUMNS"),
                        help="of the pair that is timed")
    parser.add_argument("--scenes", type=whole(), default=3, metavar="N", help="scenes shown in the report")
    parser.add_argument("--max-memory-gb", type=number(above=True), metavar="G",
                        help="bound for whole frames; else tiles")
    parser.add_argument("--published", action="store_true", help="show quoted DPDD figures in gray")
