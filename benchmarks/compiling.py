"""What `--compile` costs and brings on the CPU: `python benchmarks/compiling.py`.

Each recipe's network restores a pair of one size, in a fresh process whose compiler has nothing in its cache. The
first call of the compiled network takes `first_call`; then calls of it and of the same network as it is take turns.

    python benchmarks/compiling.py --recipes k3dn_s_dpdd --precisions float32 --size 576 672
"""
import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.recipes import network_of  # noqa: E402
from benchmarks.table import RESULTS, busy, cores, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402
from k3dn_plugin.commands._process import prepare_process  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["k3dn_s_dpdd", "k3dn_dpdd", "drbnet_dual_dpdd"],
                        metavar="NAME")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], metavar="NAME")
    parser.add_argument("--size", nargs=2, type=int, default=(288, 336), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)   # a recipe and a precision, in this process
    parser.add_argument("--csv", default=RESULTS / "compiling.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    if arguments.one:
        print(*measure(*arguments.one, arguments.size, arguments.rounds), sep="\t")
        return
    rows = []
    for recipe in arguments.recipes:
        for precision in arguments.precisions:
            print(f"{recipe}, {precision}", file=sys.stderr)
            rows.append(row_of(recipe, precision, arguments))
    show(rows)
    save(rows, arguments.csv)


def row_of(recipe, precision, arguments):
    """A row, measured in a fresh process."""
    load = busy()
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, "--one", recipe, precision, "--size", *map(str, arguments.size), "--rounds",
             str(arguments.rounds)], stdout=subprocess.PIPE, text=True, check=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache})
    size, first, cpu, plain, compiled = done.stdout.strip().splitlines()[-1].split("\t")
    return {"recipe": recipe, "pair": size, "precision": precision, "first_call_s": round(float(first), 1),
            "first_call_cpu_s": round(float(cpu), 1), "plain_s": round(float(plain), 4),
            "compiled_s": round(float(compiled), 4), "times_faster": round(float(plain) / float(compiled), 2),
            "threads": cores(), "load": load}


def measure(recipe, precision, size, rounds):
    """Padded size, seconds and processor seconds of the first call, seconds of later ones, plain and compiled."""
    prepare_process()
    import torch

    from k3dn_plugin.zoo.load import load_restorer

    network = network_of(recipe).to(memory_format=torch.channels_last)   # as from a file
    restorers = {way: load_restorer(network, device="cpu", precision=precision, compile=compiles).restore_tensor
                 for way, compiles in (("plain", False), ("compiled", True))}
    pair = torch.rand(1, 6, *size)
    began, worked = time.perf_counter(), processor_seconds()
    restorers["compiled"](pair)
    first, cpu = time.perf_counter() - began, processor_seconds() - worked
    restorers["plain"](pair)
    runs = {way: [] for way in restorers}
    for _ in range(rounds):
        for way, restore in restorers.items():
            began = time.perf_counter()
            restore(pair)
            runs[way].append(time.perf_counter() - began)
    medians = (statistics.median(runs[way]) for way in restorers)
    return ("{} x {}".format(*network.size_rule.padded(*size)), first, cpu, *medians)


def processor_seconds():
    """Of this process and of the compilers that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
