"""List the papers' numbers beside those that users measured with official files, as a Markdown page.

k3dn test --weights OFFICIAL_FILE --data datasets/dpdd/test.lmdb --protocol dpdd16 --out results/mine
k3dn numbers --add results/mine/summary.json --by "your name" -o docs/numbers.md
"""
import argparse
import sys
from pathlib import Path

from k3dn_plugin.commands._console import print_page

GROUP = "weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-o", "--out", type=Path, help="write the page here (docs/numbers.md); else print it")
    parser.add_argument("--add", type=Path, metavar="FILE",
                        help="first add the row of a summary.json, as test writes it")
    parser.add_argument("--by", metavar="NAME", help="who measured it; needed with --add")
    parser.add_argument("--method", metavar="NAME",
                        help="the published row that it belongs to, where there are several")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.commands._numbers_page import numbers_page
    from k3dn_plugin.comparison.reproduced import TABLE, add_score
    from k3dn_plugin.errors import OptionError

    if arguments.add is not None:
        if not arguments.by:
            raise OptionError("--add needs --by NAME: who measured the scores")
        score = add_score(arguments.add, by=arguments.by, method=arguments.method)
        print(f"{score.restorer} ({score.method}) by {score.protocol}: {score.psnr:.4f} dB, added to {TABLE}",
              file=sys.stderr)
    print_page(numbers_page(), arguments.out)
    return 0
