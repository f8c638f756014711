"""Check one of our networks against a published one: python tools/check_parity.py MANIFEST GOLDEN"""
import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", help="manifest.json, or a folder that holds it")
    parser.add_argument("golden", nargs="?", help="golden.npz (default: beside the manifest)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.zoo.parity import check_parity
    report = check_parity(arguments.manifest, arguments.golden)
    if arguments.json:
        print(json.dumps({"network": report.network, "errors": report.errors,
                          "tolerance": report.tolerance, "passed": report.passed}))
    else:
        for name, error in report.errors.items():
            print(f"{report.network:16} {name:16} largest relative error {error:.3e}")
        print("passed" if report.passed else f"FAILED: above {report.tolerance:g}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
