"""Say what is installed, missing or broken, and how to fix it.

k3dn doctor                           # this installation
k3dn doctor data datasets/dpdd        # prepared stores: damage, depth, views swapped or turned
"""
import argparse
import sys

GROUP = "machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("what", nargs="?", choices=("data",), help="data: look at prepared stores instead")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="a store (*.lmdb), or a folder of stores")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.doctor.installation import examine, report
    if arguments.what is None:
        findings = examine()
        print(report(findings))
    else:
        from k3dn_plugin.doctor.stores import verify  # heavy: not before the command runs
        from k3dn_plugin.errors import OptionError  # heavy: not before the command runs
        if arguments.folder is None:
            raise OptionError("doctor data: which store? Give its folder, e.g. datasets/dpdd")
        findings = verify(arguments.folder, progress=sys.stderr.isatty())
        print(report(findings, well="the data is sound"))
    return int(any(finding.harmful for finding in findings))
