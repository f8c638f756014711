"""Make stores of a published data set, or of one's own pairs: checked, resumable, nothing half-made left."""
import argparse
import sys

from k3dn_plugin.commands._numbers import whole
from k3dn_plugin.registry import PREPARERS

GROUP = "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; the layouts known to the registry are listed below them."""
    known = {name: PREPARERS.get(name) for name in PREPARERS.names()}
    parser.epilog = "Data sets and the layout of SOURCE:\n\n" + "\n\n".join(
        f"{name}: {cls.title}\n{cls.tree}" for name, cls in known.items())
    parser.add_argument("name", help=f"one of {', '.join(known)}")
    parser.add_argument("--source", required=True, metavar="DIR", help="the folder with the original files")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the stores go, e.g. datasets/dpdd")
    parser.add_argument("--bits", type=int, choices=(8, 16),
                        help="bit depth of the files, where it differs from the published one")
    parser.add_argument("--full-scale", type=whole(256, 65535), metavar="N",
                        help="the number that stands for white in 16-bit files of fewer bits: 1023, 4095 or 16383 "
                             "for 10, 12 or 14")
    parser.add_argument("--keep-portrait", action="store_true",
                        help="do not turn frames that are higher than wide (their views must be shifted "
                             "along the columns all the same)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because OpenCV and lmdb take time and --help should not.
    from k3dn_plugin.data.preparation import get_preparer, prepare

    get_preparer(arguments.name)
    prepared = prepare(arguments.name, arguments.source, arguments.out, bits=arguments.bits,
                       full_scale=arguments.full_scale, keep_portrait=arguments.keep_portrait,
                       progress=sys.stderr.isatty())
    for split in prepared:
        print(split.summary())
    return 0
