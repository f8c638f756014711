"""List every registered restorer with what its card says and what it costs, as a Markdown page."""
import argparse
from pathlib import Path

from k3dn_plugin.commands._console import print_page

GROUP = "restorers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-o", "--out", type=Path, help="write the page here (docs/restorers.md); else print it")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.commands._restorer_page import restorer_page

    print_page(restorer_page(), arguments.out)
    return 0
