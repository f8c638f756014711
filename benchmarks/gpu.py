"""Everything that needs a GPU, in less than eight minutes: `python benchmarks/gpu.py`.

Outputs against those of the CPU, half precisions, compile, a CUDA graph, training steps, the loader's share of a step,
the simulator on the device, and whether two runs, one of them resumed, end with the same bits. Each part is timed by
itself, one that fails is a row that says so, and no part begins after the time is up. The CSV file names the card.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --dry-run          # the same parts with tiny networks on the CPU: nothing is measured
"""
import argparse
import math
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.table import RESULTS, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402
from k3dn_plugin.errors import OptionError  # noqa: E402

MINUTES = 7.5
RECIPES = ("k3dn_s_dpdd", "k3dn_m_dpdd", "k3dn_dpdd", "restormer_dpdd")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny networks on the CPU, to see that all parts run")
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which no part begins")
    parser.add_argument("--csv", metavar="FILE", help="default: benchmarks/results/gpu.csv; none with --dry-run")
    arguments = parser.parse_args(argv)

    import torch
    if not arguments.dry_run and not torch.cuda.is_available():
        raise OptionError("there is no GPU that torch can use; --dry-run runs the parts on the CPU")
    for name in arguments.only or ():
        if name not in PARTS:
            raise OptionError(f"--only: no part is called {name}; there are {', '.join(PARTS)}")
    place = Place(torch.device("cpu" if arguments.dry_run else "cuda"), arguments.dry_run)
    rows, began = [], time.monotonic()
    for name in arguments.only or PARTS:
        if time.monotonic() - began > 60 * arguments.minutes:
            rows.append(row(name, "", "not begun: the time was up", ""))
            continue
        start = time.monotonic()
        try:
            rows += PARTS[name](place)
        except Exception as error:  # the other parts are worth having
            if arguments.dry_run:
                raise
            rows.append(row(name, "", f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}", ""))
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    show(rows)
    if arguments.csv or not arguments.dry_run:
        device = "cpu (dry run)" if arguments.dry_run else torch.cuda.get_device_name()
        save(rows, arguments.csv or RESULTS / "gpu.csv", device=device)


class Place:
    """Where things run, and how large they are."""

    def __init__(self, device, dry):
        self.device, self.dry = device, dry
        self.steps = {}   # of `training`: seconds of a step and its samples, by recipe

    def restorer(self, recipe):
        import torch

        from k3dn_plugin.options import load_options
        from k3dn_plugin.registry import ARCHS
        torch.manual_seed(0)
        network = dict(load_options(str(ROOT / "options" / f"{recipe}.yml")).network_g)
        if self.dry:
            network = {"type": network["type"], **ARCHS.get(network["type"]).tiny_arguments}
        return ARCHS.build(network).eval()

    def pair(self, restorer, rows=560, columns=840, batch=1):
        import torch
        size = (48, 48) if self.dry else (rows, columns)
        return torch.rand(batch, 6, *restorer.size_rule.padded(*size),
                          generator=torch.Generator().manual_seed(0))

    def seconds(self, call, rounds=10):
        """The median time of a call, after two that do not count."""
        import statistics
        found = []
        for number in range(2 + (1 if self.dry else rounds)):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            if number >= 2:
                found.append(time.perf_counter() - began)
        return statistics.median(found)

    def wait(self):
        import torch
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def row(part, what, value, unit):
    return {"part": part, "what": what, "value": value if isinstance(value, str) else f"{value:.4g}", "unit": unit}


def decibel(one, other):
    error = (one.float().cpu() - other.float().cpu()).pow(2).mean().sqrt().item()
    return 99.0 if error == 0 else -20 * math.log10(error)


def outputs(place):
    """Float32, bfloat16 and float16 on the device against float32 on the CPU."""
    import torch
    rows = []
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for recipe in ("k3dn_s_dpdd", "restormer_dpdd", "nafnet_dpdd", "drbnet_dual_dpdd"):
        restorer = place.restorer(recipe)
        pair = place.pair(restorer, 256, 256)
        with torch.no_grad():
            wanted = restorer(pair)
            restorer.to(place.device)
            there = pair.to(place.device)
            difference = (restorer(there).cpu() - wanted).abs().max().item()
            rows.append(row("outputs", f"{recipe}, float32, largest difference to the CPU", difference, ""))
            for half in (torch.bfloat16,) if place.dry else (torch.bfloat16, torch.float16):
                with torch.autocast(place.device.type, half):
                    rows.append(row("outputs", f"{recipe}, {half}", decibel(restorer(there), wanted), "dB"))
    return rows


def speed(place):
    """Forward passes: float32 with TF32, bfloat16, compiled, and as a CUDA graph."""
    import torch
    rows = []
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for recipe in RECIPES[:1] if place.dry else RECIPES:
        restorer = place.restorer(recipe).to(place.device, memory_format=torch.channels_last)
        pair = place.pair(restorer).to(place.device)
        size = "{} x {}".format(*pair.shape[-2:])
        with torch.no_grad():
            rows.append(row("speed", f"{recipe}, {size}, float32", place.seconds(partial(restorer, pair)), "s"))
            with torch.autocast(place.device.type, torch.bfloat16):
                rows.append(row("speed", f"{recipe}, {size}, bfloat16", place.seconds(partial(restorer, pair)), "s"))
                if recipe == RECIPES[0]:
                    rows += compiled_and_graph(place, restorer, pair, recipe)
    return rows


def compiled_and_graph(place, restorer, pair, recipe):
    import torch
    began = time.monotonic()
    network = torch.compile(restorer, dynamic=False, backend="eager" if place.dry else "inductor")
    network(pair)
    place.wait()
    rows = [row("compile", f"{recipe}, first call", time.monotonic() - began, "s"),
            row("compile", f"{recipe}, bfloat16", place.seconds(lambda: network(pair)), "s")]
    if place.device.type == "cuda":
        held = pair.clone()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            restorer(held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            restorer(held)
        rows.append(row("graph", f"{recipe}, bfloat16, CUDA graph", place.seconds(graph.replay), "s"))
    return rows


def training(place):
    """A training step in bfloat16 of the recipes' networks, and its peak memory."""
    import torch
    rows = []
    for recipe in RECIPES[:1] if place.dry else RECIPES:
        restorer = place.restorer(recipe).train().to(place.device)
        pair = place.pair(restorer, 256, 256, batch=1 if place.dry else 4).to(place.device)
        optimizer = torch.optim.AdamW(restorer.parameters(), lr=1e-4, fused=place.device.type == "cuda")

        def step(restorer=restorer, pair=pair, optimizer=optimizer):
            with torch.autocast(place.device.type, torch.bfloat16):
                loss = (restorer(pair).float() - pair[:, :3]).abs().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        what = "{}, {} x {} x {}".format(recipe, pair.shape[0], *pair.shape[-2:])
        place.steps[recipe] = place.seconds(step, rounds=5), pair.shape[0]
        rows.append(row("training", what, place.steps[recipe][0], "s"))
        if place.device.type == "cuda":
            rows.append(row("training", f"{what}, peak", torch.cuda.max_memory_allocated() / 2 ** 30, "GiB"))
    return rows


def simulator(place):
    """Simulated pairs a second, and what share of a training step one loading process takes to make its pairs."""
    from k3dn_plugin.data.sample import SampleIndex
    from k3dn_plugin.registry import DATASETS
    rows = []
    for device in {"cpu", place.device.type}:
        crop = 32 if place.dry else 256
        dataset = DATASETS.build({"type": "SimulatedDualPixelDataset", "length": 100, "crop_size": crop,
                                  "max_radius": 4.0 if place.dry else 12.0, "device": device})
        number = iter(range(10_000))
        seconds = place.seconds(lambda data=dataset, number=number: data[SampleIndex(0, next(number) % 100)])
        rows.append(row("simulator", f"pairs of {crop} x {crop} on {device}, one process", 1 / seconds, "a second"))
        rows += [row("simulator", f"share of a step of {recipe} that one process takes to make its pairs on {device}",
                     seconds * samples / step, "") for recipe, (step, samples) in place.steps.items()]
    return rows


def resumed(place):
    """Train four iterations, once as a whole and once resumed after two: the weights must have the same bits."""
    import os
    import tempfile

    import torch

    from k3dn_plugin.options import load_options
    from k3dn_plugin.training import train
    from k3dn_plugin.training.state import state_files
    from k3dn_plugin.zoo.weights import read_weights
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")   # cuBLAS keeps its order of sums with it
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resumed.yml"
        path.write_text(RESUMED.format(folder=folder, network=network_text()), encoding="utf-8")
        options = load_options(path)
        device = place.device.type
        before = train(options, device=device, quiet=True)
        whole = read_weights(before.last_weights).state
        for state in state_files(before.folder / "states")[:2]:
            state.unlink()   # as if it had been killed half-way
        before.last_weights.unlink()
        again = read_weights(train(options, resume="auto", device=device, quiet=True).last_weights).state
    unequal = [name for name in whole if not torch.equal(whole[name], again[name])]
    return [row("resumed", "tensors with other bits after resuming", len(unequal), f"of {len(whole)}")]


def network_text():
    import json

    from k3dn_plugin.registry import ARCHS
    return json.dumps({"type": "DPDNet", **ARCHS.get("DPDNet").tiny_arguments})


RESUMED = """
name: resumed
manual_seed: 3
num_threads: 1
datasets:
  train: {{type: SimulatedDualPixelDataset, length: 6, crop_size: [32, 40], max_radius: 4.0, batch_size_per_gpu: 2,
           num_worker_per_gpu: 1}}
network_g: {network}
path: {{experiments_root: {folder}}}
train:
  total_iter: 4
  optim_g: {{type: AdamW, lr: 1.0e-3}}
  scheduler: {{type: Constant}}
  losses: {{pixel: {{type: L1Loss}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 1, keep_checkpoints: 9, use_tb_logger: false}}
"""

PARTS = {"outputs": outputs, "speed": speed, "training": training, "simulator": simulator, "resumed": resumed}


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
