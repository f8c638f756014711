"""Say what is installed, missing or broken, and how to mend it.

    python tools/doctor.py                           # this installation
    python tools/doctor.py data datasets/dpdd        # prepared stores: damage, depth, views swapped or turned
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("data",), help="data: look at prepared stores instead")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="a store (*.lmdb), or a folder of stores")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.doctor import examine, report
    if arguments.what is None:
        findings = examine()
        print(report(findings))
    else:
        from k3dn_plugin.data.verify import verify
        from k3dn_plugin.errors import OptionError
        if arguments.folder is None:
            raise OptionError("doctor data: which store? Give its folder, e.g. datasets/dpdd")
        findings = verify(arguments.folder, progress=sys.stderr.isatty())
        print(report(findings, well="the data is sound"))
    return int(any(finding.harmful for finding in findings))


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
