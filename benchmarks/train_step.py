"""Time and memory of a training step of every registered restorer in its published settings, side by side.

One forward and backward pass and an optimiser's step with an L1 loss on the restored image, in alternating
rounds; the same crops for all. Memory is what the step adds to the process (CPU) or to the GPU.

    python benchmarks/train_step.py --crop 288 336
    python benchmarks/train_step.py --only K3DN Restormer --device cuda --batch 4 --amp bfloat16
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.restorers import build, chosen
from benchmarks.table import RESULTS, busy, save, show
from k3dn_plugin.commands import run_tool


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="names or patterns")
    parser.add_argument("--crop", nargs=2, type=int, default=(288, 336), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", choices=("bfloat16", "float16"))
    parser.add_argument("--csv", default=RESULTS / "train_step.csv", metavar="FILE")
    arguments = parser.parse_args(argv)

    import torch

    from k3dn_plugin.evaluation.provenance import device_name
    device = torch.device(arguments.device)
    rows = measure(chosen(arguments.only), arguments, device)
    show(rows)
    save(rows, arguments.csv, device=device_name(device) if device.type == "cuda" else None)


def measure(names, arguments, device):
    import torch

    from k3dn_plugin.evaluation.measure import measured_in_turns
    from k3dn_plugin.inference.memory import GIB
    load = busy()
    pair = torch.rand(arguments.batch, 6, *arguments.crop, device=device)
    batch = {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": pair[:, :3],
             "name": ["random"] * arguments.batch}

    def ready(name):
        # Built anew for each round: weights, gradients and optimizer states of all would not fit at once.
        step = training_step(name, batch, device, arguments.amp)
        step()
        return step
    found = measured_in_turns({name: lambda name=name: ready(name) for name in names}, device=device,
                              rounds=arguments.rounds, progress=lambda line: print(line, file=sys.stderr))
    fastest = min(one.median_seconds for one in found.values())
    crop = "{} x {}".format(*arguments.crop)
    rules = {name: build(name, torch.device("meta")).size_rule for name in found}
    return [{"restorer": name, "crop": crop, "ran_as": "{} x {}".format(*rules[name].padded(*arguments.crop)),
             "batch": arguments.batch, "amp": arguments.amp or "none",
             "seconds": round(one.median_seconds, 3), "cpu_seconds": round(one.median_cpu, 3),
             "samples_per_second": round(arguments.batch / one.median_seconds, 3),
             "ratio": round(one.median_seconds / fastest, 2),
             "step_GiB": round(one.most_bytes / GIB, 2), "threads": torch.get_num_threads(), "load": load}
            for name, one in found.items()]


def training_step(name, batch, device, amp):
    import torch
    import torch.nn.functional as F
    restorer = build(name, device).train()
    optimiser = torch.optim.AdamW((p for p in restorer.parameters() if p.requires_grad), lr=1e-5)
    if restorer.card.recurrent:
        batch = {k: v[:, None] if torch.is_tensor(v) else v for k, v in batch.items()}

    def step():
        with torch.autocast(device.type, getattr(torch, amp or "bfloat16"), enabled=amp is not None):
            restored = restorer.training_outputs(batch)["restored"]
        F.l1_loss(restored.float(), batch["gt"]).backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
