"""List the papers' numbers beside those that users measured with official files, as a Markdown page."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, help="write the page here (docs/numbers.md); else print it")
    parser.add_argument("--add", type=Path, metavar="FILE",
                        help="first add the row of a summary.json, as test writes it")
    parser.add_argument("--by", metavar="NAME", help="who measured it; needed with --add")
    parser.add_argument("--method", metavar="NAME",
                        help="the published row that it belongs to, where there are several")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.atomic import atomic_write
    from k3dn_plugin.comparison.numbers_page import numbers_page
    from k3dn_plugin.comparison.reproduced import TABLE, add_score
    from k3dn_plugin.errors import OptionError

    if arguments.add is not None:
        if not arguments.by:
            raise OptionError("--add needs --by NAME: who measured the scores")
        score = add_score(arguments.add, by=arguments.by, method=arguments.method)
        print(f"{score.restorer} ({score.method}) by {score.protocol}: {score.psnr:.4f} dB, added to {TABLE}",
              file=sys.stderr)
    page = numbers_page()
    if arguments.out is None:
        print(page)
        return
    with atomic_write(arguments.out) as handle:
        handle.write(page.encode("utf-8"))


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
