"""What holds for all contestants of a comparison."""
from dataclasses import dataclass
from pathlib import Path

from k3dn_plugin.comparison.budget import Budget
from k3dn_plugin.evaluation.cost import FULL_FRAME


@dataclass(frozen=True)
class Settings:
    """What holds for all contestants.

    Attributes:
        out: the folder of the comparison.
        data: the store that is scored on.
        protocol: its name; None takes the data's usual one.
        budget: of training; None trains each recipe for its own length.
        seeds: one training run each.
        jobs, devices: processes at a time, and what they run on.
        cpus: processors of each job; None shares this machine's among the jobs.
        reference: label of the contestant that the others are compared with; None takes the first.
        size: (rows, columns) at which MACs are counted. latency_size: at which restorers are timed.
        scenes: how many scenes are shown.
        metrics, diagnostics: beside those of the protocol.
        published: overlay quoted figures.
    """

    out: Path
    data: str
    protocol: str | None = None
    budget: Budget | None = None
    seeds: tuple[int, ...] = (1,)
    jobs: int = 1
    devices: tuple[str, ...] = ("cpu",)
    cpus: int | None = None
    reference: str | None = None
    size: tuple[int, int] = FULL_FRAME
    latency_size: tuple[int, int] = (256, 256)
    scenes: int = 3
    max_memory_gb: float | None = None
    metrics: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    published: bool = False
