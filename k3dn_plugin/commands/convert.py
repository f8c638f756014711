"""Convert a published checkpoint to our safetensors format, with its settings and origin inside.

k3dn convert dual_pixel_defocus_deblurring.pth -o weights/restormer.safetensors
k3dn convert FILE                  # only say what it holds
"""
import argparse

from k3dn_plugin.console import command_line

GROUP = "weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", help="a published file (for DDDNet one of its two, or their folder), or one of "
                                           "ours")
    parser.add_argument("-o", "--out", metavar="FILE.safetensors", help="where to write; left out: nowhere")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.zoo.weights import read_weights, save_weights
    weights = read_weights(arguments.checkpoint)
    print(weights.describe(weights.build()))
    if arguments.out:
        save_weights(arguments.out, weights.state, network_g=weights.network_g, provenance=weights.provenance)
        print(f"written to {arguments.out}; next:\n  {command_line('restore')} --left L.png --right R.png "
              f"-o restored.png --weights {arguments.out}")
    return 0
