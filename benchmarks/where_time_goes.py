"""Where the time of a forward pass goes: convolutions, and how near they come to what the machine can do.

`of_matrix_rate` is the rate of the convolutions (their own time) as a share of that of one large matrix product in the
same process: near 1, only fewer operations would make the network faster.

    python benchmarks/where_time_goes.py
    python benchmarks/where_time_goes.py --recipes drbnet_dpdd ifan_dpdd --size 512 512
"""
import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.recipes import network_of  # noqa: E402
from benchmarks.table import RESULTS, busy, cores, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402

MATRIX = 2048     # side of the matrices whose product gives the machine's rate
KINDS = {"convolutions": ("conv2d", "conv3d", "conv_transpose"),
         "matrix_products": ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear")}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", metavar="NAME",
                        default=["k3dn_dpdd", "k3dn_s_dpdd", "restormer_dpdd", "drbnet_dpdd", "ifan_dpdd"])
    parser.add_argument("--size", nargs=2, type=int, default=(288, 336), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--csv", default=RESULTS / "where_time_goes.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    import torch
    torch.set_num_threads(arguments.threads)
    rate = matrix_rate()
    rows = [row_of(name, arguments.size, arguments.passes, rate) for name in arguments.recipes]
    load = busy()
    rows = [{**row, "threads": arguments.threads, "load": load} for row in rows]
    show(rows)
    save(rows, arguments.csv)


def matrix_rate():
    """Operations a second of a large float32 product, the best of several."""
    import torch
    left, right = torch.rand(2, MATRIX, MATRIX)
    best = min(timed(lambda: left @ right) for _ in range(8))
    return 2 * MATRIX ** 3 / best


def row_of(name, size, passes, rate):
    """Time one recipe's network and share it out."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode
    restorer = network_of(name).eval()
    pair = torch.rand(1, 6, *restorer.size_rule.padded(*size))
    with torch.no_grad():
        restorer(pair)
        seconds = statistics.median(timed(lambda: restorer(pair)) for _ in range(passes))
        with FlopCounterMode(display=False) as counter:
            restorer(pair)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            restorer(pair)
    spent = defaultdict(float)
    for event in profiled.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(spent.values())
    operations = sum(count for operator, count in counter.get_flop_counts()["Global"].items()
                     if kind_of(str(operator)) == "convolutions")
    share = {kind: spent[kind] / total for kind in (*KINDS, "other")}
    return {"recipe": name, "pair": "{} x {}".format(*pair.shape[-2:]), "seconds": round(seconds, 4),
            **{kind: f"{share[kind]:.0%}" for kind in share},
            "convolution_gflops": round(operations / 1e9, 1),
            "of_matrix_rate": f"{operations / (share['convolutions'] * seconds) / rate:.0%}",
            "matrix_gflops_a_second": round(rate / 1e9, 1)}


def kind_of(operator):
    """`convolutions`, `matrix_products` or `other`, by a name of the profile (aten::bmm) or the counter (aten.bmm)."""
    word = operator.replace("::", ".").removeprefix("aten.").removeprefix("mkldnn_").lstrip("_").partition(".")[0]
    if word.startswith("convolution"):
        return "convolutions"
    return next((kind for kind, words in KINDS.items() if word in words), "other")


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
