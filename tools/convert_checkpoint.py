"""Convert a published checkpoint to our safetensors format, with its settings and origin inside.

    python tools/convert_checkpoint.py dual_pixel_defocus_deblurring.pth -o weights/restormer.safetensors
    python tools/convert_checkpoint.py FILE                  # only say what it holds
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a published file; for DDDNet one of its two, or their folder")
    parser.add_argument("-o", "--out", metavar="FILE.safetensors", help="where to write; left out: nowhere")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.zoo import load_official, save_weights
    found = load_official(arguments.checkpoint)
    print(found.describe())
    if arguments.out:
        weights = found.weights
        save_weights(arguments.out, weights.state, network_g=weights.network_g, provenance=weights.provenance)
        print(f"written to {arguments.out}; next:\n  python tools/restore.py --left L.png --right R.png "
              f"-o restored.png --weights {arguments.out}")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
