"""Latency, memory and cost of every registered restorer in its published settings, side by side.

Small pairs (256 x 256) are restored in alternating rounds, so that a drifting machine hits all alike; full
frames (1120 x 1680) each in a process of its own, whole where memory allows and in tiles where not.

    python benchmarks/restorers.py
    python benchmarks/restorers.py --only K3DN Restormer --device cuda --csv gpu.csv
    python benchmarks/restorers.py --full-frames            # takes the better part of an hour on two cores
"""
import argparse
import fnmatch
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.table import RESULTS, busy, save, show
from k3dn_plugin.commands import run_tool
from k3dn_plugin.commands._process import prepare_process

FULL = (1120, 1680)
MEMORY_GB = 20


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="names or patterns")
    parser.add_argument("--size", type=int, default=256, help="side of the small pairs")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full-frames", action="store_true", help="full frames instead of small pairs")
    parser.add_argument("--memory-gb", type=float, default=MEMORY_GB, help="bound for full frames")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a full frame through one restorer, in this process
    parser.add_argument("--csv", metavar="FILE", help="default: benchmarks/results/restorers*.csv")
    arguments = parser.parse_args(argv)

    if arguments.one:
        prepare_process()
    import torch
    device = torch.device(arguments.device)
    if arguments.one:
        print(*full_frame(arguments.one, device, arguments.memory_gb), sep="\t")
        return
    names = chosen(arguments.only)
    if arguments.full_frames:
        rows, name = full_frames(names, arguments), "restorers_full_frame.csv"
    else:
        rows, name = small_pairs(names, arguments.size, arguments.rounds, device), "restorers.csv"
    from k3dn_plugin.evaluation.provenance import device_name
    show(rows)
    save(rows, arguments.csv or RESULTS / name, device=device_name(device) if device.type == "cuda" else None)


def chosen(patterns):
    from k3dn_plugin.commands._restorer_page import restorer_names
    names = [n for n in restorer_names() if any(fnmatch.fnmatch(n, pattern) for pattern in patterns)]
    if not names:
        from k3dn_plugin.errors import OptionError
        raise OptionError(f"--only: no restorer is called {' or '.join(patterns)}; there are "
                          f"{', '.join(restorer_names())}")
    return names


def build(name, device):
    import torch

    from k3dn_plugin.registry import ARCHS
    torch.manual_seed(0)
    return ARCHS.build({"type": name}).eval().to(device)


def ways_of_k3dn(device):
    """K3DN as plain PyTorch would have it, and as `--precision auto` runs it, so that the ratios are in the table."""
    import torch

    from k3dn_plugin.archs.k3dn_arch import K3DN
    from k3dn_plugin.modules.preservation import sharp_region

    class Plain(K3DN):
        def forward(self, *arguments, **named):
            ours, sharp_region.local_similarity = sharp_region.local_similarity, unfolded_similarity
            try:
                return super().forward(*arguments, **named)
            finally:
                sharp_region.local_similarity = ours

    class Fast(K3DN):
        def forward(self, *arguments, **named):
            with torch.autocast(device.type, torch.bfloat16):
                return super().forward(*arguments, **named)

    torch.manual_seed(0)
    return {"K3DN, plain (unfold)": Plain().eval().to(device),
            "K3DN, bfloat16 + channels last": Fast().eval().to(device, memory_format=torch.channels_last)}


def unfolded_similarity(query, key, radius=4):
    """The local similarity as it is written first: all shifted keys at once."""
    import torch.nn.functional as F
    batch, channels, height, width = query.shape
    shifted = F.unfold(key, 2 * radius + 1, padding=radius).view(batch, channels, -1, height, width)
    return (query[:, :, None] * shifted).mean(1)


def small_pairs(names, size, rounds, device):
    """Rows of `rounds` alternating rounds over all restorers, after one unmeasured call of each."""
    import torch

    from k3dn_plugin.evaluation.measure import measure_restorers
    load = busy()
    ways = {name: build(name, device) for name in names}
    if "K3DN" in names:
        ways.update(ways_of_k3dn(device))
    found = measure_restorers(ways, size=(size, size),
                              latency_size=(size, size), device=device, rounds=rounds,
                              progress=lambda line: print(line, file=sys.stderr))
    fastest = min(one["latency_seconds"] for one in found.values())
    least = min(one["cpu_seconds"] for one in found.values())
    return [{"restorer": name, "parameters_M": round(one["parameters"] / 1e6, 2), "gmacs": round(one["macs"] / 1e9, 1),
             "pair": f"{size} x {size}", "ran_as": "{} x {}".format(*one["size"]),
             "seconds": round(one["latency_seconds"], 4), "cpu_seconds": round(one["cpu_seconds"], 4),
             "ratio": round(one["latency_seconds"] / fastest, 2), "ratio_cpu": round(one["cpu_seconds"] / least, 2),
             "threads": torch.get_num_threads(), "load": load} for name, one in found.items()]


def full_frames(names, arguments):
    """Rows of full frames, each restorer in a fresh process, whose peak memory is then its own."""
    import torch
    rows = []
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {name}", file=sys.stderr)
        done = subprocess.run([sys.executable, __file__, "--one", name, "--device", arguments.device,
                               "--memory-gb", str(arguments.memory_gb)],
                              stdout=subprocess.PIPE, text=True, check=True)
        seconds, cpu, peak, size, tiling = done.stdout.strip().split("\t")
        rows.append({"restorer": name, "pair": "{} x {}".format(*FULL), "ran_as": size,
                     "seconds": round(float(seconds), 1), "cpu_seconds": round(float(cpu), 1),
                     "peak_GiB": round(float(peak), 2), "how": tiling, "threads": torch.get_num_threads(),
                     "load": busy()})
    fastest = min(row["seconds"] for row in rows)
    return [{**row, "ratio": round(row["seconds"] / fastest, 2)} for row in rows]


def full_frame(name, device, memory_gb):
    """Seconds, processor seconds, peak GiB, padded size and how the frame was cut, for one pair of 1120 x 1680."""
    import torch

    from k3dn_plugin.inference.memory import GIB
    from k3dn_plugin.zoo.load import load_restorer
    restorer = build(name, device).to(memory_format=torch.channels_last)   # as those from a file are
    restore = load_restorer(restorer, device=device, max_memory_gb=memory_gb).restore_tensor
    pair = torch.rand(1, 6, *FULL)
    began, busy_before = time.perf_counter(), time.process_time()
    restored = restore(pair)
    return (time.perf_counter() - began, time.process_time() - busy_before, restored.peak_bytes / GIB,
            "{} x {}".format(*restorer.size_rule.padded(*FULL)), restored.tiling)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
