"""Write a restorer as an ONNX file, or as a program of torch.export, that runs without this package.

k3dn export best.safetensors -o net.onnx                     # every size that the network takes
k3dn export best.safetensors -o net.onnx --size 1120 1680    # one size
k3dn export best.safetensors -o net.pt2                      # for torch.export.load

Inputs: lq (1, 6, H, W), left RGB then right RGB in [0, 1], and center (1, 3, H, W) where the restorer reads it;
output: restored (1, 3, H, W), not clamped. The file is checked against PyTorch before the command ends.
"""
import argparse
from typing import Literal

GROUP = "weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("weights", help="a weights file, a folder or a name of released weights")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    parser.add_argument("--size", nargs="+", default=["dynamic"], metavar=("H", "W"),
                        help="rows and columns of the pairs, or the word dynamic (default): any size that the size "
                             "rule allows")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    size = parse_size(arguments.size)
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.zoo.export import TOLERANCE, export_restorer
    from k3dn_plugin.zoo.load import load_restorer
    loaded = load_restorer(arguments.weights, device="cpu")
    made = export_restorer(loaded, arguments.out, size=size)
    sizes = "{} x {}".format(*made.smallest)
    if size == "dynamic":
        sizes = "multiples of {} x {} from ".format(*loaded.restorer.size_rule.multiple) + sizes + " on"
    print(f"written to {arguments.out} for pairs of {sizes}; largest difference to PyTorch {made.difference:.1e} "
          f"(allowed: {TOLERANCE:g})")
    return 0


def parse_size(words: list[str]) -> "tuple[int, int] | Literal['dynamic']":
    """Return (rows, columns), or "dynamic".

    Raises:
        OptionError: neither.
    """
    from k3dn_plugin.errors import OptionError  # as in `run`
    if words == ["dynamic"]:
        return "dynamic"
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() and int(word) for word in words):
        raise OptionError(f"--size: expected rows and columns (--size 1120 1680) or dynamic; found {' '.join(words)}")
    return int(words[0]), int(words[1])
