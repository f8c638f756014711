"""How a restorer is run, as the commands that restore take it from the command line."""
import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from k3dn_plugin.commands._numbers import number, whole

if TYPE_CHECKING:
    from k3dn_plugin.zoo.load import LoadedRestorer


def add_inference_arguments(parser: argparse.ArgumentParser, *, progress: bool = True) -> None:
    """Declare where, how precisely and in which pieces a restorer runs, and whether a bar shows how far it is."""
    parser.add_argument("--tile", type=whole(1), metavar="N", help="restore in tiles of N x N pixels")
    parser.add_argument("--max-memory-gb", type=number(above=True), metavar="G",
                        help="bound in GiB (of the process on the CPU, of torch's memory on a GPU); "
                             "larger frames are restored in tiles")
    parser.add_argument("--precision", choices=("float32", "bf16", "fp16", "auto"), default="float32",
                        help="float32 (default); bf16 or fp16, faster where the machine has them; auto: bf16 where the "
                             "restorer's card says that it changes too little to matter")
    parser.add_argument("--bf16", dest="precision", action="store_const", const="bf16",
                        help="the same as --precision bf16")
    parser.add_argument("--self-ensemble", action="store_true",
                        help="mean over the four flips that are true for dual-pixel pairs (4 x the time)")
    parser.add_argument("--compile", action="store_true",
                        help="compile the network first, which takes about a minute a size; for many frames")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    if progress:
        parser.add_argument(
            "--progress", action=argparse.BooleanOptionalAction,
            help="show a bar: how far, how long still; default: where standard error is a terminal")


def load_as_asked(source: str | Path, arguments: argparse.Namespace) -> "LoadedRestorer":
    """Load the restorer that `source` names, to be run as the arguments say; raises as `load_restorer`."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.zoo.load import load_restorer
    return load_restorer(source, device=arguments.device, precision=arguments.precision,
                         tile=arguments.tile, max_memory_gb=arguments.max_memory_gb,
                         self_ensemble=arguments.self_ensemble, compile=arguments.compile)
