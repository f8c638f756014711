"""Make stores of a published data set, or of one's own pairs: checked, resumable, nothing half-made left."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    from k3dn_plugin.data.preparation import get_preparer, prepare
    from k3dn_plugin.data.preparation.base import load_preparers
    layouts = "\n\n".join(f"{name}: {cls.title}\n{cls.tree}" for name, cls in load_preparers().items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Data sets and the layout of SOURCE:\n\n" + layouts,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=f"one of {', '.join(load_preparers())}")
    parser.add_argument("--source", required=True, metavar="DIR", help="the folder with the original files")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the stores go, e.g. datasets/dpdd")
    parser.add_argument("--bits", type=int, choices=(8, 16),
                        help="bit depth of the files, where it differs from the published one")
    parser.add_argument("--keep-portrait", action="store_true",
                        help="do not turn frames that are higher than wide (their views must be shifted "
                             "along the columns all the same)")
    arguments = parser.parse_args(argv)

    get_preparer(arguments.name)
    prepared = prepare(arguments.name, arguments.source, arguments.out, bits=arguments.bits,
                       keep_portrait=arguments.keep_portrait, progress=sys.stderr.isatty())
    for split in prepared:
        print(split.summary())


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
