"""Which samples each iteration sees, known for any iteration without counting up to it."""
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from k3dn_plugin.data.sample import SampleIndex
from k3dn_plugin.errors import DataError, OptionError


class Phase(NamedTuple):
    """`iterations` with one batch size a process and one crop size (None: the data set's own)."""

    iterations: int
    batch_size: int
    crop_size: tuple[int, int] | None = None


class ResumableSampler(Sampler[list[SampleIndex]]):
    """Batches of `SampleIndex`, one list an iteration, from any iteration on.

    The samples are one endless sequence: a permutation of the data set for epoch 0, another for epoch 1, and
    so on; iteration i takes the next ones. A batch that reaches the end of an epoch goes on in the next, so
    every batch is full. With W processes of batch b, iteration i of all of them together takes what one
    process with batch W b would take.

    Args:
        length: samples in the data set.
        phases: how long, and with which batch and crop size; one phase for a plain schedule.
        seed: of the permutations.
        start_iteration: the first iteration to give; those before it are skipped by arithmetic.
        rank, world_size: this process among all.
        shuffle: False goes through the data set in its own order.
    """

    def __init__(self, length: int, phases: Sequence[Phase], *, seed: int = 0, start_iteration: int = 0,
                 rank: int = 0, world_size: int = 1, shuffle: bool = True):
        if length < 1:
            raise DataError("the data set is empty: there is nothing to sample. Check its folder or store")
        if not 0 <= rank < world_size or start_iteration < 0 or any(
                phase.iterations < 0 or phase.batch_size < 1 for phase in phases):
            raise OptionError("expected 0 <= rank < world_size, a start of at least 0 and batches of at "
                              f"least 1; found rank {rank} of {world_size}, start {start_iteration}, "
                              f"{list(phases)}")
        self.length, self.phases, self.seed = length, tuple(phases), seed
        self.start_iteration, self.rank, self.world_size = start_iteration, rank, world_size
        self.shuffle = shuffle
        self._permutation = (None, None)

    @property
    def total_iterations(self) -> int:
        """Of all phases."""
        return sum(phase.iterations for phase in self.phases)

    def __len__(self):
        return max(self.total_iterations - self.start_iteration, 0)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for iteration in range(self.start_iteration, self.total_iterations):
            yield self.batch(iteration)

    def batch(self, iteration: int) -> list[SampleIndex]:
        """What `iteration` (from 0) takes in this process."""
        position = 0
        for phase in self.phases:
            if iteration < phase.iterations:
                break
            position += phase.iterations * phase.batch_size * self.world_size
            iteration -= phase.iterations
        else:
            raise IndexError(f"iteration {iteration + self.total_iterations} of {self.total_iterations}")
        first = position + (iteration * self.world_size + self.rank) * phase.batch_size
        return [SampleIndex(*self._at(first + i), phase.crop_size) for i in range(phase.batch_size)]

    def _at(self, position):
        """`(epoch, index)` at a position of the endless sequence."""
        epoch, place = divmod(position, self.length)
        if not self.shuffle:
            return epoch, place
        if self._permutation[0] != epoch:
            draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
            self._permutation = epoch, draw.permutation(self.length)
        return epoch, int(self._permutation[1][place])
