"""Look inside a K3DN: its kernels, their symmetry and spectra, which windows query which, disparity against blur.

k3dn inspect-kernels --weights experiments/k3dn_demo/models/best.safetensors --data datasets/demo/val.lmdb
"""
import argparse
from pathlib import Path

from k3dn_plugin.commands._numbers import whole

GROUP = "restorers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--weights", required=True, metavar="FILE", help="a K3DN, ours or a published checkpoint")
    parser.add_argument("--data", metavar="STORE", help="a prepared store, for queries and disparity")
    parser.add_argument("--scene", type=whole(), default=0, metavar="N", help="which of its scenes, from 0")
    parser.add_argument("-o", "--out", type=Path, default=Path("results/kernels"), metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.analysis.kernels import inspection_pictures, kernel_facts
    from k3dn_plugin.analysis.pictures import write_pictures
    from k3dn_plugin.evaluation.run import scored_dataset
    from k3dn_plugin.zoo.load import load_restorer
    restorer = load_restorer(arguments.weights, device="cpu").restorer
    restorer = getattr(restorer, "restorer", restorer)
    sample = scored_dataset(None, arguments.data)[arguments.scene] if arguments.data else None
    print("set  kernels  size  asymmetry  low-pass  kernels in use")
    for one in kernel_facts(restorer, sample):
        used = "-" if one.used is None else f"{one.used:.1f}"
        print(f"{one.block + 1:3}  {one.kernels:7}  {one.size:4}  {one.asymmetry:9.1e}  {one.low_pass:8.0%}  {used}")
    for path in write_pictures(inspection_pictures(restorer, sample), arguments.out):
        print(path)
    return 0
