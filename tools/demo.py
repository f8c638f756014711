"""The whole toolbox in some minutes: make dual-pixel pairs, train a small K3DN, score it, show pictures."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-opt", default="options/k3dn_demo.yml", help="the recipe to train")
    parser.add_argument("--data", default="datasets/demo", help="where the demo data is, or will be made")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
                        help="change an option, e.g. train.total_iter=200")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.demo import run_demo
    return run_demo(option_file=arguments.opt, data=arguments.data, overrides=arguments.set)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
