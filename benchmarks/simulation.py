"""Simulated pairs per second, ways of rendering side by side, and what a training step uses up.

One process, one thread, in alternating rounds, 256 x 256 crops (and 96 x 96, those of the demo). The baseline
is RDPD's published way (every depth layer blurs the whole crop, 8 bits) on a picture with depth; the last row
is K3DN as in options/k3dn_demo.yml, training on batches of 8.

    python benchmarks/simulation.py
    python benchmarks/simulation.py --device cuda --csv mine.csv    # the layered renderers, on a GPU
"""
import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.table import RESULTS, save, show
from k3dn_plugin.commands import run_tool

ROOT = Path(__file__).resolve().parents[1]
CROP, SMALL, RADIUS = 256, 96, 12.0


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where the layered renderers work")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--csv", default=RESULTS / "simulation.csv", metavar="FILE")
    arguments = parser.parse_args(argv)

    import torch

    from k3dn_plugin.data.loader import single_threaded
    from k3dn_plugin.evaluation.provenance import device_name
    single_threaded()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        rgb, depth = picture_with_depth(Path(folder))
        ways = {**simulators(str(rgb), str(depth), arguments.device),
                ("K3DN of the demo, a training step", "-", f"{SMALL} x {SMALL}", "cpu"): (training_step(), 8)}
        rates = measure(ways, arguments.seconds, arguments.rounds)
    rows = tabulate(rates)
    show(rows)
    save(rows, arguments.csv, device=device_name(device) if device.type == "cuda" else None,
         packages=("torch", "numpy", "opencv-python"))


def picture_with_depth(folder):
    """The Middlebury motorcycle of scikit-image, depths of 2 to 12 metres."""
    import cv2

    from k3dn_plugin.simulation.demo import load_motorcycle
    from k3dn_plugin.simulation.sensor import quantize
    image, disparity = load_motorcycle()
    for name in ("rgb", "depth"):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / "rgb" / "motorcycle.png"), quantize(image, 8)[..., ::-1])
    near, far = float(disparity.max()), float(disparity.min())
    inverse = 1 / 12 + (disparity.numpy() - far) / (near - far) * (1 / 2 - 1 / 12)
    np.save(folder / "depth" / "motorcycle.npy", (1 / inverse).astype(np.float32))
    return folder / "rgb", folder / "depth"


def simulators(rgb, depth, device):
    """{(scenes, renderer, crop, device): (makes one sample of an index, samples in it)}"""
    from dataclasses import replace

    from k3dn_plugin.data.sample import SampleIndex
    from k3dn_plugin.registry import DATASETS

    def dataset(exact=False, **settings):
        made = DATASETS.build({"type": "SimulatedDualPixelDataset", "length": 10_000, "crop_size": CROP,
                               "max_radius": RADIUS, **settings})
        if exact:
            made.settings = replace(made.settings, fast=False)
        return (lambda index: made[SampleIndex(0, index)]), 1
    rgbd = {"photos": rgb, "depth": depth}
    small = {"crop_size": SMALL, "max_radius": 5.0}
    crop, size = f"{CROP} x {CROP}", f"{SMALL} x {SMALL}"
    return {
        ("picture with depth", "RDPD's layers (mode: rdpd)", crop, "cpu"): dataset(**rgbd, mode="rdpd"),
        ("picture with depth", "DDDNet's splatting (mode: dddnet)", crop, "cpu"): dataset(**rgbd, mode="dddnet"),
        ("picture with depth", "layered, exact", crop, device): dataset(True, **rgbd, device=device),
        ("picture with depth", "layered, fast", crop, device): dataset(**rgbd, device=device),
        ("photographs", "layered, exact", crop, device): dataset(True, device=device),
        ("photographs", "layered, fast", crop, device): dataset(device=device),
        ("photographs", "layered, fast", size, device): dataset(**small, device=device),
    }


def training_step():
    """One iteration of the demo's recipe, on pairs that are there already."""
    import torch
    import torch.nn.functional as F

    from k3dn_plugin.options import load_options
    from k3dn_plugin.registry import ARCHS
    restorer = ARCHS.build(load_options(ROOT / "options" / "k3dn_demo.yml").network_g).train()
    optimiser = torch.optim.AdamW(restorer.parameters(), lr=1e-4)
    pair = torch.rand(8, 6, SMALL, SMALL)
    batch = {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": pair[:, :3], "name": ["random"] * 8}

    def step(index):
        optimiser.zero_grad()
        F.l1_loss(restorer.training_outputs(batch)["restored"], batch["gt"]).backward()
        optimiser.step()
    return step


def measure(ways, seconds, rounds):
    """Samples per second of every way, in every round, after one unmeasured call of each."""
    for make, _ in ways.values():
        make(0)
    rates, done = {key: [] for key in ways}, dict.fromkeys(ways, 0)
    for number in range(rounds):
        for key, (make, samples) in ways.items():
            first, began = done[key], time.perf_counter()
            while time.perf_counter() - began < seconds:
                done[key] += 1
                make(done[key] % 10_000)
            rates[key].append(samples * (done[key] - first) / (time.perf_counter() - began))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return rates


def tabulate(rates):
    medians = {key: statistics.median(values) for key, values in rates.items()}
    baseline = next(iter(medians.values()))
    return [{"scenes": scenes, "way": way, "crop": crop, "on": device, "samples_per_second": float(f"{rate:.3g}"),
             "milliseconds": round(1000 / rate, 2), "ratio": round(rate / baseline, 2)}
            for (scenes, way, crop, device), rate in medians.items()]


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
