"""What restorers cost to use, measured side by side."""
import statistics
import time

import torch

from k3dn_plugin.archs.base import blank_maps
from k3dn_plugin.evaluation.cost import count_macs, count_parameters
from k3dn_plugin.inference.memory import PeakMemory, memory_in_use, release
from k3dn_plugin.registry import ARCHS, LOSSES, MODULES
from k3dn_plugin.training.graph import TrainingGraph
from k3dn_plugin.training.stages import share_stage

ROUNDS = 5


def measure_restorers(restorers: dict, *, size, latency_size=(256, 256), device="cpu",
                      rounds=ROUNDS) -> dict[str, dict]:
    """Parameters, MACs, latency and memory of each restorer.

    Latency is the median of `rounds` calls after one that does not count; the restorers take turns, so that a
    machine that slows down slows all alike. Memory is what a call adds to what is in use before.

    Args:
        restorers: by label, in evaluation mode.
        size: (rows, columns) for the MACs.
        latency_size: (rows, columns) of the pair that is timed.
        device: where.

    Returns:
        by label: `parameters`, `macs`, `latency_seconds`, `memory_bytes`.
    """
    device = torch.device(device)
    pair = torch.rand(1, 6, *latency_size, device=device)
    seconds, memory = {label: [] for label in restorers}, dict.fromkeys(restorers, 0)
    for number in range(rounds + 1):
        for label, restorer in restorers.items():
            restorer.to(device)
            release(device)
            before = memory_in_use(device)
            with PeakMemory(device) as peak, torch.inference_mode():
                began = time.perf_counter()
                restorer(pair, **blank_maps(restorer, pair))
                if device.type == "cuda":
                    torch.cuda.synchronize()
                taken = time.perf_counter() - began
            if number:
                seconds[label].append(taken)
                memory[label] = max(memory[label], peak.bytes - before)
    return {label: {"parameters": count_parameters(restorer), "macs": count_macs(restorer, size),
                    "latency_seconds": statistics.median(seconds[label]), "memory_bytes": max(memory[label], 0)}
            for label, restorer in restorers.items()}


def training_seconds(stage, steps: int) -> float:
    """Seconds of an iteration of a `Stage` on random crops: the median of `steps` after one that does not count."""
    graph = TrainingGraph(
        ARCHS.build(stage.network_g), trainable=stage.trainable,
        losses={name: LOSSES.build(spec) for name, spec in stage.losses.items()},
        reblur=MODULES.build(stage.reblur) if stage.reblur else None).train()
    phase = share_stage(stage, 1)[-1]
    crop = phase.crop_size or stage.dataset.arguments().get("crop_size") or (256, 256)
    crop = (crop, crop) if isinstance(crop, int) else tuple(crop)
    pair = torch.rand(phase.batch_size, 6, *crop)
    batch = {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": pair[:, :3]}
    if getattr(graph.restorer, "maps", ()):
        batch["defocus"] = torch.rand(phase.batch_size, 1, *crop)  # what its maps are made of in training
    taken = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        sum(graph(batch).values()).backward()
        taken.append(phase.accumulate * (time.perf_counter() - began))
    return statistics.median(taken[1:])
