"""List every registered restorer with what its card says and what it costs, as a Markdown page."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, help="write the page here (docs/restorers.md); else print it")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.atomic import atomic_write
    from k3dn_plugin.evaluation.restorer_page import restorer_page

    page = restorer_page()
    if arguments.out is None:
        print(page)
        return
    with atomic_write(arguments.out) as handle:
        handle.write(page.encode("utf-8"))


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
