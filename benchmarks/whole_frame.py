"""Time and peak memory of whole frames of 24 megapixels (4000 x 6000), restored within 8 GiB.

Each restorer works in a process of its own, whose peak resident memory is then its own, prepared as a command's process
is. Weights are random: they change neither time nor memory.

    python benchmarks/whole_frame.py
    python benchmarks/whole_frame.py --recipes k3dn_s_dpdd nafnet_dual_dpdd --size 2000 3000 --memory-gb 4
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.recipes import network_of  # noqa: E402
from benchmarks.table import RESULTS, busy, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402
from k3dn_plugin.commands._process import prepare_process  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["k3dn_s_dpdd", "ifan_dual_dpdd"], metavar="NAME",
                        help="option files whose networks run")
    parser.add_argument("--size", nargs=2, type=int, default=(4000, 6000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--memory-gb", type=float, default=8.0)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one restorer, in this process
    parser.add_argument("--csv", default=RESULTS / "whole_frame.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    if arguments.one:
        print(json.dumps(restore_one(arguments.one, arguments)))
        return
    rows = []
    for recipe in arguments.recipes:
        done = subprocess.run([sys.executable, __file__, "--one", recipe, "--size", *map(str, arguments.size),
                               "--memory-gb", str(arguments.memory_gb), "--precision", arguments.precision],
                              stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], file=sys.stderr, flush=True)
    show(rows)
    save(rows, arguments.csv)


def restore_one(recipe, arguments):
    """Return the row of one recipe's network."""
    prepare_process()
    import resource

    import torch

    from k3dn_plugin.zoo.load import load_restorer
    restorer = network_of(recipe).to(memory_format=torch.channels_last)
    loaded = load_restorer(restorer, device="cpu", max_memory_gb=arguments.memory_gb, precision=arguments.precision)
    pair = torch.rand(1, 6, *arguments.size)
    load, last = busy(), [0.0]

    def progress(done, total):
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(f"{recipe}: {done} of {total} tiles", file=sys.stderr, flush=True)
    wall, cpu = time.perf_counter(), time.process_time()
    frame = loaded.restore_tensor(pair, progress=progress)
    return {"recipe": recipe, "pair": "{} x {}".format(*arguments.size),
            "precision": loaded.inference.half or "float32",
            "seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
            "bound_GiB": arguments.memory_gb,
            "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20, 2),
            "how": frame.tiling, "threads": torch.get_num_threads(), "load": load, "finite": bool(
                frame.image.isfinite().all() and frame.image.shape == (1, 3, *arguments.size))}


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
