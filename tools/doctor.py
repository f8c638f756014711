"""Say what is installed, missing or broken, and how to mend it."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args(argv)

    from k3dn_plugin.doctor import examine, report
    findings = examine()
    print(report(findings))
    return int(any(finding.harmful for finding in findings))


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
