"""Cost against pixels and against batch, and a plot of both: `python benchmarks/scaling.py`.

A cost that grows faster than the pixels shows where a network must be cut into tiles; one that does not grow with the
batch, where a machine stands idle. CPU time is plotted on the CPU (it is fair on a busy machine), wall time on a GPU.

    python benchmarks/scaling.py --recipes k3dn_s_dpdd nafnet_dual_dpdd --device cuda
"""
import argparse
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.recipes import network_of  # noqa: E402
from benchmarks.table import RESULTS, busy, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402

PLOT = ROOT / "docs" / "scaling.png"
SIDES = ((288, 336), (432, 448), (576, 672), (720, 784))
BATCHES = (1, 2, 4)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["k3dn_s_dpdd", "nafnet_dual_dpdd", "ifan_dual_dpdd"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="two sizes alone")
    parser.add_argument("--csv", default=RESULTS / "scaling.csv", metavar="FILE")
    parser.add_argument("--plot", default=PLOT, metavar="FILE")
    arguments = parser.parse_args(argv)
    rows = measure(arguments)
    show(rows)
    save(rows, arguments.csv)
    plot(rows, arguments.plot)


def measure(arguments):
    import torch

    from k3dn_plugin.evaluation.measure import measured_in_turns
    load, ways, sizes = busy(), {}, SIDES[:2] if arguments.small else SIDES
    for recipe in arguments.recipes:
        network = network_of(recipe).eval()
        network.to(arguments.device, memory_format=torch.channels_last)
        for batch, size in [(1, size) for size in sizes] + [(batch, sizes[0]) for batch in BATCHES[1:]]:
            pair = torch.rand(batch, 6, *network.size_rule.padded(*size), device=arguments.device)
            ways[recipe, batch, tuple(pair.shape[-2:])] = partial(ready, network, pair)
    found = measured_in_turns(ways, device=arguments.device, rounds=arguments.rounds)
    return [{"recipe": recipe, "batch": batch, "ran_as": "{} x {}".format(*size), "pixels": batch * size[0] * size[1],
             "seconds": round(one.median_seconds, 4), "cpu_seconds": round(one.median_cpu, 4),
             "peak_GiB": round(one.most_bytes / 2 ** 30, 2), "on": arguments.device,
             "threads": torch.get_num_threads(), "load": load}
            for (recipe, batch, size), one in found.items()]


def ready(network, pair):
    import torch

    def call():
        with torch.no_grad():
            network(pair)
    return call


def plot(rows, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    column = "cpu_seconds" if rows[0]["on"] == "cpu" else "seconds"
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        single = [row for row in own if row["batch"] == 1]
        axes[0].plot([row["pixels"] / 1e6 for row in single], [row[column] for row in single], "o-", label=recipe)
        grouped = [single[0], *(row for row in own if row["batch"] > 1)]
        axes[1].plot([row["batch"] for row in grouped], [row[column] for row in grouped], "o-", label=recipe)
    for axis, label in zip(axes, ("megapixels of one pair", f"pairs in a batch, {rows[0]['ran_as']} each")):
        axis.set(xlabel=label, ylabel=column.replace("_", " "), xlim=(0, None), ylim=(0, None))
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
