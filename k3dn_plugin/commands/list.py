"""List every registered restorer with what its card says and what it costs, as a Markdown page.

With --weights, list the weights that come with the package instead: by which name, and how they score.
"""
import argparse
from pathlib import Path

from k3dn_plugin.commands._console import print_page

GROUP = "restorers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--weights", action="store_true", help="list the weights that come with the package instead")
    parser.add_argument("-o", "--out", type=Path, help="write the page here (docs/restorers.md); else print it")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.commands._restorer_page import restorer_page
    from k3dn_plugin.zoo.released import released_page, released_weights

    page = f"{released_page(released_weights())}\n" if arguments.weights else restorer_page()
    print_page(page, arguments.out)
    return 0
