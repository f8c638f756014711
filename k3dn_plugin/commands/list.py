"""List every registered restorer with what its card says and what it costs, as a Markdown page."""
import argparse
from pathlib import Path

GROUP = "restorers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-o", "--out", type=Path, help="write the page here (docs/restorers.md); else print it")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.commands._restorer_page import restorer_page
    from k3dn_plugin.files import atomic_write

    page = restorer_page()
    if arguments.out is None:
        print(page)
        return 0
    with atomic_write(arguments.out) as handle:
        handle.write(page.encode("utf-8"))
    return 0
