"""Check one of our networks against a published one: k3dn check-parity MANIFEST GOLDEN."""
import argparse
import json

GROUP = "weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("manifest", help="manifest.json, or a folder that holds it")
    parser.add_argument("golden", nargs="?", help="golden.npz (default: beside the manifest)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
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
