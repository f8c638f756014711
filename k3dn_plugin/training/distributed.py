"""One process or many: who this process is, and the few collective operations that training and scoring need.

Started by `torchrun` (`--launcher pytorch`) or by SLURM (`--launcher slurm`), every process runs the same
program; process 0 writes the files. On the GPU the back end is NCCL, on the CPU gloo.
"""
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from k3dn_plugin.errors import K3DNError, OptionError
from k3dn_plugin.inference.device import choose_device

# Groups that are done with. Were a DDP module the last to hold one, freeing it would wait for gloo's threads
# while these wait for the interpreter's lock: a process in eight would hang at its end.
_ended = []


@dataclass(frozen=True)
class ProcessGroup:
    """This process among all: `rank` of `size`, and the device that it trains on."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def wrap(self, graph: nn.Module, *, find_unused: bool) -> nn.Module:
        """Return `graph` itself, or `DistributedDataParallel` around it.

        Args:
            find_unused: whether parameters without a gradient have to be looked for in each step.
        """
        if self.size == 1:
            return graph
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(graph, device_ids=ids, find_unused_parameters=find_unused)

    def synchronized(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager:
        """Context in which `model`'s gradients are exchanged only on the last micro-batch."""
        if last or self.size == 1:
            return contextlib.nullcontext()
        return cast("DistributedDataParallel", model).no_sync()   # what `wrap` gave

    def share(self, losses: Sequence[dict[str, torch.Tensor]], number: int) -> tuple[list[dict[str, float]], int]:
        """Return each micro-batch's losses, the mean over all processes, and the largest of the processes' `number`s.

        One collective, and the one moment of a step in which the host waits for the device.
        """
        values = [value for found in losses for value in found.values()]
        shared = torch.stack([value.detach().double() for value in values])
        if self.size > 1:
            shared = torch.cat([shared, shared.new_full((1,), number)])
            all_of_them = [torch.empty_like(shared) for _ in range(self.size)]
            dist.all_gather(all_of_them, shared)
            table = torch.stack(all_of_them)
            means = table[:, :-1].sum(0) / self.size
            numbers = [*means.tolist(), *table[:, -1].tolist()]
            number = int(max(numbers[len(values):]))
        else:
            numbers = shared.tolist()
        each = iter(numbers)
        return [{name: next(each) for name in found} for found in losses], number

    def largest(self, number: int) -> int:
        """Return the largest of the processes' integers."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's `value`, in the order of ranks, on every process."""
        values = [None] * self.size
        if self.size == 1:
            return [value]
        dist.all_gather_object(values, value)
        return values

    def from_main(self, function: Callable[[], Any]) -> Any:
        """Return what `function()` returns on process 0, on all of them.

        An error that process 0 meets is raised on all, so that none waits for one that has gone.
        """
        if self.size == 1:
            return function()
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = function()
            except K3DNError as error:
                answer[1] = error
        dist.broadcast_object_list(answer)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the buffers (batch-norm statistics) of process 0."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


@contextlib.contextmanager
def launched(launcher: str, device: str = "auto", backend: str = "nccl", *,
             timeout: timedelta | None = None) -> Iterator[ProcessGroup]:
    """The `ProcessGroup` of this process; its process group lives as long as the context.

    Args:
        launcher: "none", "pytorch" (torchrun's environment) or "slurm".
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        backend: for CUDA; the CPU always uses gloo.
        timeout: that a process waits for the others; None takes torch's.

    Raises:
        OptionError: the environment does not fit the launcher, or CUDA is asked for and missing.
    """
    if launcher == "none":
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise OptionError("this process was started by torchrun as one of several, but --launcher is "
                              "none: each would work by itself and overwrite the others. "
                              "Add --launcher pytorch")
        yield ProcessGroup(choose_device(device))
        return
    if launcher not in ("pytorch", "slurm"):
        raise OptionError(f"launcher: expected none, pytorch or slurm; found {launcher!r}")
    if launcher == "slurm":
        _slurm_environment()
    missing = [v for v in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if v not in os.environ]
    if missing:
        raise OptionError(f"--launcher pytorch: {', '.join(missing)} missing from the environment. Start "
                          "with: torchrun --nproc_per_node N --no-python k3dn train -opt FILE --launcher pytorch")
    local = int(os.environ.get("LOCAL_RANK", 0))
    chosen = choose_device(device, local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group(backend if chosen.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield ProcessGroup(chosen, dist.get_rank(), dist.get_world_size())
    finally:
        _ended.append(dist.group.WORLD)
        dist.destroy_process_group()


def has_ended() -> bool:
    """Return whether this process was one of several, and is no longer."""
    return bool(_ended)


def _slurm_environment() -> None:
    """Translate SLURM's variables into those that torch reads."""
    try:
        rank, size = os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"]
        local, nodes = os.environ.get("SLURM_LOCALID", "0"), os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise OptionError(f"--launcher slurm: {error.args[0]} is not set. Start with: "
                          "srun k3dn train -opt FILE --launcher slurm") from None
    if "MASTER_ADDR" not in os.environ:
        try:
            names = subprocess.run(["scontrol", "show", "hostname", nodes], capture_output=True, text=True,
                                   check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise OptionError(f"--launcher slurm: `scontrol show hostname {nodes}` failed ({error}); "
                              "set MASTER_ADDR to the first node's name") from None
        os.environ["MASTER_ADDR"] = names[0]
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ.update(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=local)
