"""How an iteration's batch is shared out: over devices, over micro-batches, over the phases of a stage.

A recipe may state its global batch (`train.global_batch`), and progressive ones a batch and a crop size for
each part of a stage (`train.phases`, as Restormer does). Each device then takes what it can hold at a
time, `batch_size_per_gpu` samples at most, as often as needed; so one GPU can follow a recipe of eight.
"""
from typing import NamedTuple

from k3dn_plugin.errors import OptionError


class SharedPhase(NamedTuple):
    """Part of a stage, shared out over devices.

    Attributes:
        iterations: of this part.
        batch: samples that a device holds at a time.
        accumulate: micro-batches of an iteration.
        crop_size: (rows, columns); None leaves it to the data set.
        devices: how many there are.
    """

    iterations: int
    batch: int
    accumulate: int
    crop_size: tuple[int, int] | None
    devices: int

    @property
    def global_batch(self) -> int:
        """Samples that an iteration sees, over all devices and micro-batches."""
        return self.batch * self.accumulate * self.devices


def share_stage(stage, devices: int) -> list[SharedPhase]:
    """The phases of a `Stage` on that many devices; a stage without phases is one.

    Raises:
        OptionError: the phases are not as long as the stage, or a global batch cannot be shared out evenly.
    """
    limit = stage.dataset.batch_size_per_gpu
    if not stage.phases:
        batch, accumulate = limit, stage.accumulate
        if stage.global_batch is not None:
            batch, accumulate = share(stage.global_batch, devices, limit, f"stage {stage.name!r}")
        return [SharedPhase(stage.total_iter, batch, accumulate, None, devices)]
    length = sum(phase.iterations for phase in stage.phases)
    if length != stage.total_iter:
        raise OptionError(f"train.phases of stage {stage.name!r} have {length:,} iterations together, the stage "
                          f"{stage.total_iter:,}: make them equal")
    shared = []
    for number, phase in enumerate(stage.phases):
        batch, accumulate = share(phase.global_batch, devices, phase.batch_size_per_gpu or limit,
                                  f"phase {number + 1} of stage {stage.name!r}")
        shared.append(SharedPhase(phase.iterations, batch, accumulate, _pair(phase.crop_size), devices))
    return shared


def share(global_batch: int, devices: int, limit: int, where: str) -> tuple[int, int]:
    """`(batch, accumulate)` of each device: as many at a time as `limit` allows, the same every time.

    Raises:
        OptionError: `global_batch` is not a multiple of `devices`.
    """
    if global_batch % devices:
        raise OptionError(f"{where}: a global batch of {global_batch} cannot be shared evenly by {devices} "
                          f"devices; use a number of devices that divides it, or change global_batch")
    own = global_batch // devices
    batch = max(size for size in range(1, min(own, limit) + 1) if own % size == 0)
    return batch, own // batch


def micro_batches_before(phases: list[SharedPhase], iteration: int) -> int:
    """Micro-batches of a device in the first `iteration` iterations."""
    return _before(phases, iteration, lambda phase: phase.accumulate)


def samples_before(phases: list[SharedPhase], iteration: int) -> int:
    """Samples that all devices together see in the first `iteration` iterations of a stage."""
    return _before(phases, iteration, lambda phase: phase.global_batch)


def phase_at(phases: list[SharedPhase], iteration: int) -> SharedPhase:
    """The phase of `iteration`, counted from 0 within the stage; after its end, the last one."""
    for phase in phases:
        if iteration < phase.iterations:
            return phase
        iteration -= phase.iterations
    return phases[-1]


def _before(phases, iteration, each):
    """The sum of `each(phase)` over the first `iteration` iterations."""
    count = 0
    for phase in phases:
        inside = min(iteration, phase.iterations)
        count += inside * each(phase)
        iteration -= inside
    return count


def _pair(size):
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)
