"""Cut the sharp crops that recipes train on out of freely licensed photographs.

    k3dn photographs --list                                             # what they are, and where they come from
    k3dn photographs --source DIR --out datasets/photographs/crops      # cut them

DIR and the folders below it are searched for the listed photographs (datasets/photographs/README.md); those that are
missing are named at the end, and the exit status is 1 then. An interrupted command goes on where it stopped.
"""
import argparse
import sys

from tqdm import tqdm

from k3dn_plugin.errors import DataError

GROUP = "data"
FOLDER = "datasets/photographs/crops"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", metavar="DIR", help="folder with the photographs, anywhere below it")
    what.add_argument("--list", action="store_true", help="print source, author and licence of each instead")
    parser.add_argument("-o", "--out", metavar="DIR", default=FOLDER, help=f"folder for the crops (default {FOLDER})")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    from k3dn_plugin.simulation.photograph_list import listed_crops, listed_photographs  # heavy, as below
    listed = listed_photographs()
    if arguments.list:
        for entry in listed.values():
            print(f"{entry.path}\n    {entry.source}, {entry.author}, {entry.licence}")
        return 0
    return cut(arguments.source, arguments.out, listed, listed_crops())


def cut(source: str, out: str, listed: dict, crops: list) -> int:
    """Cut the crops of all photographs that are found; return 0, or 1 where some are missing."""
    from k3dn_plugin.simulation.photograph_list import cut_crops, find_photographs  # heavy: not before the command runs
    found = find_photographs(source, listed)
    problems = [f"{entry.path} of {entry.source}: not found" for name, entry in listed.items() if name not in found]
    due = [crop for crop in crops if crop.photograph in found]
    written = 0
    with tqdm(total=len(due), desc="cutting crops", unit="crop", file=sys.stderr, mininterval=1.0) as bar:
        for name, path in found.items():
            try:
                written += len(cut_crops(path, listed[name], [c for c in due if c.photograph == name], out,
                                         done=bar.update))
            except DataError as error:
                problems.append(str(error))
    print(f"{out}: {written} of {len(crops)} crops, from {len(found)} of {len(listed)} photographs")
    for line in problems:
        print(f"missing: {line}", file=sys.stderr)
    return 1 if problems else 0
