"""Train a recipe.

    k3dn train -opt k3dn_demo

The experiment's folder (experiments/<name>) gets options, log, metrics.csv, TensorBoard, weights, states
to resume from, and pictures. Several processes:
    torchrun --nproc_per_node 4 --no-python k3dn train -opt FILE --launcher pytorch
What a recipe will do on so many devices, without starting it:
    k3dn train -opt FILE --plan --devices 2
"""
import argparse

from k3dn_plugin.commands._numbers import whole

GROUP = "restorers"


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.options import load_options
    from k3dn_plugin.training import train
    options = load_options(arguments.opt, arguments.set, longer=arguments.resume is not None)
    if arguments.plan:
        from k3dn_plugin.training.stages import plan_text  # heavy: not before the command runs
        print(plan_text(options, arguments.devices))
        return 0
    result = train(options, resume=arguments.resume, device=arguments.device, launcher=arguments.launcher,
                   overwrite=arguments.overwrite)
    # The shell's convention for a program that a signal stopped: 130 for Ctrl-C, 143 for SIGTERM.
    return 0 if result.finished else 128 + result.stopped_by


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-opt", required=True, metavar="FILE",
                        help="option file (YAML), or the name of a shipped recipe (k3dn_dpdd)")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
                        help="change options, e.g. --set train.optim_g.lr=1e-4 name=slower")
    parser.add_argument("--resume", metavar="auto|PATH",
                        help="go on: auto takes the newest readable state of this run, if there is one; "
                             "or a state file, or the folder of a run. A finished run goes on for longer where "
                             "train.total_iter is raised")
    parser.add_argument("--overwrite", action="store_true",
                        help="start afresh where a run of this name lies (its folder is renamed)")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--plan", action="store_true",
                        help="print batch, accumulation, iterations, samples and learning rate, and stop")
    parser.add_argument("--devices", type=whole(1), default=1, metavar="N", help="for --plan: how many devices")
