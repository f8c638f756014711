"""The whole toolbox in some minutes: make dual-pixel pairs, train a small K3DN, score it, show pictures."""
import argparse

GROUP = "machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-opt", default="options/k3dn_demo.yml", help="the recipe to train")
    parser.add_argument("--data", default="datasets/demo", help="where the demo data is, or will be made")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
                        help="change an option, e.g. train.total_iter=200")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.demo import run_demo
    return run_demo(option_file=arguments.opt, data=arguments.data, overrides=arguments.set)
