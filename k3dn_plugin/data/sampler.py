"""Which samples each iteration sees, known for any iteration without counting up to it."""
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from k3dn_plugin.data.sample import SampleIndex, random_source
from k3dn_plugin.errors import DataError, OptionError


class Phase(NamedTuple):
    """Part of a stage with one batch and one crop size.

    Attributes:
        iterations: of this part.
        batch_size: samples that a process holds at a time.
        crop_size: (rows, columns); None leaves it to the data set.
        accumulate: batches of a process in one iteration.
        processes: that share an iteration.
    """

    iterations: int
    batch_size: int
    crop_size: tuple[int, int] | None = None
    accumulate: int = 1
    processes: int = 1

    @property
    def global_batch(self) -> int:
        """Samples that an iteration sees, over all processes and accumulated batches."""
        return self.batch_size * self.accumulate * self.processes


def phase_at(phases: Sequence[Phase], iteration: int) -> Phase:
    """Return the phase of `iteration` (from 0); after the end, the last one."""
    for phase in phases:
        if iteration < phase.iterations:
            return phase
        iteration -= phase.iterations
    return phases[-1]


def count_before(phases: Sequence[Phase], iteration: int, each: Callable[[Phase], int]) -> int:
    """Return the sum of `each(phase)` over the first `iteration` iterations."""
    count = 0
    for phase in phases:
        inside = min(iteration, phase.iterations)
        count += inside * each(phase)
        iteration -= inside
    return count


def samples_before(phases: Sequence[Phase], iteration: int) -> int:
    """Return how many samples all processes together see in the first `iteration` iterations."""
    return count_before(phases, iteration, lambda phase: phase.global_batch)


class ResumableSampler(Sampler[list[SampleIndex]]):
    """Batches of `SampleIndex`, from any iteration on; `accumulate` of them are one iteration.

    The samples are one endless sequence: a permutation of the data set for epoch 0, another for epoch 1, and
    so on; each batch takes the next ones. A batch that reaches the end of an epoch goes on in the next, so
    every batch is full. With W processes of batch b, batch i of all of them together takes what one
    process with batch W b would take.

    Args:
        length: samples in the data set.
        phases: how long, and with which batch and crop size; one phase for a plain schedule.
        seed: of the permutations.
        start_iteration: the first iteration whose batches are given; those before it are skipped by arithmetic.
        rank, world_size: this process among all.
        shuffle: False goes through the data set in its own order.
    """

    def __init__(self, length: int, phases: Sequence[Phase], *, seed: int = 0, start_iteration: int = 0,
                 rank: int = 0, world_size: int = 1, shuffle: bool = True):
        if length < 1:
            raise DataError("the data set is empty: there is nothing to sample. Check its folder or store")
        if not 0 <= rank < world_size or start_iteration < 0 or any(
                phase.iterations < 0 or phase.batch_size < 1 or phase.accumulate < 1 for phase in phases):
            raise OptionError("expected 0 <= rank < world_size, a start of at least 0 and batches of at "
                              f"least 1; found rank {rank} of {world_size}, start {start_iteration}, "
                              f"{list(phases)}")
        self.length, self.seed = length, seed
        # Counted in batches from here on.
        self._phases = [Phase(phase.iterations * phase.accumulate, phase.batch_size, phase.crop_size, 1, world_size)
                        for phase in phases]
        self._start = count_before(phases, start_iteration, lambda phase: phase.accumulate)
        self.rank, self.shuffle = rank, shuffle
        self._permutation: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))   # of an epoch

    @property
    def total_batches(self) -> int:
        """Batches of all phases, those before `start_iteration` included."""
        return sum(phase.iterations for phase in self._phases)

    def __len__(self) -> int:
        return max(self.total_batches - self._start, 0)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for number in range(self._start, self.total_batches):
            yield self.batch(number)

    def batch(self, number: int) -> list[SampleIndex]:
        """Return what batch `number` (from 0) takes in this process.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= number < self.total_batches:
            raise IndexError(f"batch {number} of {self.total_batches}")
        phase = phase_at(self._phases, number)
        first = samples_before(self._phases, number) + self.rank * phase.batch_size
        return [SampleIndex(*self._at(first + i), phase.crop_size) for i in range(phase.batch_size)]

    def _at(self, position: int) -> tuple[int, int]:
        """Return `(epoch, index)` at a position of the endless sequence."""
        epoch, place = divmod(position, self.length)
        if not self.shuffle:
            return epoch, place
        if self._permutation[0] != epoch:
            draw = random_source(self.seed, epoch)
            self._permutation = epoch, draw.permutation(self.length)
        return epoch, int(self._permutation[1][place])
