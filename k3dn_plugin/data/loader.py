"""The loader that feeds training: workers that do not change what is read, errors that stay readable."""
from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from k3dn_plugin.data.sample import collate
from k3dn_plugin.data.sampler import Phase, ResumableSampler
from k3dn_plugin.errors import K3DNError, OptionError


def build_loader(dataset: Dataset, *, batch_size: int | None = None, total_iterations: int | None = None,
                 phases: Sequence[Phase] | None = None, num_workers: int = 0, prefetch_factor: int = 2,
                 pin_memory: bool = False, seed: int = 0, start_iteration: int = 0, rank: int = 0,
                 world_size: int = 1, shuffle: bool = True) -> "SampleLoader":
    """Batches of `dataset`, those of an iteration one after the other, from `start_iteration` to `total_iterations`.

    Args:
        dataset: takes a `SampleIndex`.
        batch_size: of this process. With `total_iterations`, one phase; or give `phases`.
        num_workers: processes that read; 0 reads in this one. The samples are the same whatever it is.
        prefetch_factor: batches that each worker keeps ready.
        pin_memory: copy batches to page-locked memory, for a GPU.
        seed, start_iteration, rank, world_size, shuffle: see `ResumableSampler`.
    """
    if phases is None:
        if batch_size is None or total_iterations is None:
            raise OptionError("build_loader: give batch_size and total_iterations, or phases")
        phases = [Phase(total_iterations, batch_size)]
    sampler = ResumableSampler(len(dataset), phases, seed=seed, start_iteration=start_iteration, rank=rank,
                               world_size=world_size, shuffle=shuffle)
    workers = {"prefetch_factor": prefetch_factor, "persistent_workers": True} if num_workers else {}
    return SampleLoader(
        _Guarded(dataset), batch_sampler=sampler, num_workers=num_workers, collate_fn=_collate_guarded,
        pin_memory=pin_memory, worker_init_fn=single_threaded,
        # torch would draw the workers' seeds from the global generator, which training's randomness and so
        # exact resume depend on.
        generator=torch.Generator().manual_seed(seed), **workers)


class SampleLoader(DataLoader):
    """A `DataLoader` that raises a data set's error as the data set did, not as a worker's traceback."""

    def __iter__(self):
        for batch in super().__iter__():
            if isinstance(batch, K3DNError):
                raise batch
            yield batch


def single_threaded(worker_id: int = 0):
    """Keep a worker on one core: many workers with many threads each slow one another down."""
    torch.set_num_threads(1)
    try:
        import cv2  # where it is missing, there is nothing to set
    except ImportError:
        return
    cv2.setNumThreads(0)


class _Guarded(Dataset):
    """Gives a data set's errors instead of raising them, so that they pass through a worker unchanged."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        try:
            return self.dataset[index]
        except K3DNError as error:
            return error


def _collate_guarded(samples):
    errors = [sample for sample in samples if isinstance(sample, K3DNError)]
    if errors:
        return errors[0]
    try:
        return collate(samples)
    except K3DNError as error:
        return error
