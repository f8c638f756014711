"""Time and memory of several things side by side, taken in turns so that a machine that slows down slows all alike."""
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer, blank_maps
from k3dn_plugin.evaluation.cost import count_macs, count_parameters
from k3dn_plugin.inference.memory import PeakMemory, memory_in_use, release

ROUNDS = 5


@dataclass(frozen=True)
class Measured:
    """What repeated calls took.

    Attributes:
        seconds: of each call that counts.
        bytes: memory that each of them added to what was in use before.
        cpu: processor seconds of each, all threads; more wall than CPU time a thread means that it waited for others.
    """

    seconds: tuple[float, ...]
    bytes: tuple[int, ...]
    cpu: tuple[float, ...] = ()

    @property
    def median_seconds(self) -> float:
        """The median of `seconds`."""
        return statistics.median(self.seconds)

    @property
    def median_cpu(self) -> float:
        """The median of `cpu`."""
        return statistics.median(self.cpu)

    @property
    def most_bytes(self) -> int:
        """The most memory that a call added."""
        return max(self.bytes)


def measured_in_turns(prepare: Mapping[str, Callable[[], Callable[[], object]]], *, device: torch.device | str = "cpu",
                      rounds: int = ROUNDS, progress: Callable[[str], object] | None = None) -> dict[str, Measured]:
    """Measure each thing `rounds` times, one after the other in every round, after one call that does not count.

    Args:
        prepare: by label, what makes the call ready in a round and returns it; the call alone is measured.
        device: where the calls work; a GPU is waited for.
        progress: called with a line after each round.
    """
    device = torch.device(device)
    seconds, memory, cpu = ({label: [] for label in prepare} for _ in range(3))
    for number in range(rounds + 1):
        for label, ready in prepare.items():
            call = ready()
            release(device)
            before = memory_in_use(device)
            with PeakMemory(device) as peak:
                _wait(device)
                began, busy = time.perf_counter(), time.process_time()
                call()
                _wait(device)
                taken, worked = time.perf_counter() - began, time.process_time() - busy
            if number:
                seconds[label].append(taken)
                cpu[label].append(worked)
                memory[label].append(max(peak.bytes - before, 0))
            del call
        if progress is not None:
            progress(f"round {number} of {rounds}")
    return {label: Measured(tuple(seconds[label]), tuple(memory[label]), tuple(cpu[label])) for label in prepare}


def measure_restorers(restorers: Mapping[str, Restorer], *, size: tuple[int, int],
                      latency_size: tuple[int, int] = (256, 256), device: torch.device | str = "cpu",
                      rounds: int = ROUNDS, progress: Callable[[str], object] | None = None) -> dict[str, dict]:
    """Measure parameters, MACs, latency and memory of each restorer.

    Args:
        restorers: by label, in evaluation mode.
        size: (rows, columns) for the MACs.
        latency_size: (rows, columns) of the pair that is timed.
        device: where it is timed.

    Returns:
        by label: `parameters`, `macs`, `latency_seconds` (median), `memory_bytes` (most), and the single measurements
        `latencies` and `memories`; `cpu_seconds` (median) of the processor; `size`, (rows, columns) that it really ran
        on, its size rule's padding included.
    """
    device = torch.device(device)
    pair = torch.rand(1, 6, *latency_size, device=device)

    def ready(restorer: nn.Module) -> Callable[[], object]:
        restorer.to(device)

        def call() -> None:
            with torch.inference_mode():
                restorer(pair, **blank_maps(restorer, pair))
        return call
    macs = {label: count_macs(restorer, size) for label, restorer in restorers.items()}
    found = measured_in_turns({label: lambda one=one: ready(one) for label, one in restorers.items()}, device=device,
                              rounds=rounds, progress=progress)
    return {label: {"parameters": count_parameters(restorer), "macs": macs[label],
                    "size": restorer.size_rule.padded(*latency_size), "cpu_seconds": found[label].median_cpu,
                    "latency_seconds": found[label].median_seconds, "memory_bytes": found[label].most_bytes,
                    "latencies": list(found[label].seconds), "memories": list(found[label].bytes)}
            for label, restorer in restorers.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
