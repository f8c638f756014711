"""The loader that feeds training: workers that do not change what is read, errors that stay readable."""
import signal
import sys
from collections.abc import Generator, Sequence, Sized
from types import TracebackType
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from k3dn_plugin.data.sample import SampleIndex, collate
from k3dn_plugin.data.sampler import Phase, ResumableSampler
from k3dn_plugin.errors import DataError, K3DNError, OptionError


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
    sampler = ResumableSampler(len(cast("Sized", dataset)), phases, seed=seed, start_iteration=start_iteration,
                               rank=rank, world_size=world_size, shuffle=shuffle)
    workers = {"prefetch_factor": prefetch_factor, "persistent_workers": True} if num_workers else {}
    return SampleLoader(
        _ErrorsAsSamples(dataset), batch_sampler=sampler, num_workers=num_workers, collate_fn=_collate_with_errors,
        pin_memory=pin_memory, worker_init_fn=start_worker,
        # torch would draw the workers' seeds from the global generator, which training's randomness and so
        # exact resume depend on.
        generator=torch.Generator().manual_seed(seed), **workers)


class SampleLoader(DataLoader):
    """A `DataLoader` that raises a data set's error as the data set did, not as a worker's traceback."""

    def __iter__(self) -> Generator[Any, None, None]:
        iterator = super().__iter__()
        try:
            for batch in iterator:
                if isinstance(batch, K3DNError):
                    raise batch
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            explained = worker_error(error)
            if explained is None and self.num_workers and _one_was_killed(iterator):
                # It died while it handed a batch over, which shows as a connection that breaks.
                explained = worker_error(RuntimeError(f"DataLoader worker: {type(error).__name__}"))
            if explained is None:
                raise
            raise explained from error
        finally:
            self._stop_workers(iterator)

    def _stop_workers(self, iterator: Any) -> None:
        """End the workers now: they do not end at a SIGTERM (`start_worker`), which is all that exiting sends them."""
        if self.num_workers:
            self._iterator = None
            iterator._shutdown_workers()
            for worker in iterator._workers:
                if worker.is_alive():
                    worker.kill()


def _one_was_killed(iterator: Any) -> bool:
    for worker in iterator._workers:
        worker.join(0.1)
        if worker.exitcode is not None and worker.exitcode < 0:
            return True
    return False


def worker_error(error: BaseException) -> DataError | None:
    """Return what to raise in place of torch's error about a lost worker or its memory; None for other errors."""
    text = str(error)
    # Without room, a worker gets a bus error or cannot make the file by which it hands a batch over.
    if "Bus error" in text or "shared memory" in text or "/torch_" in text:
        return DataError("the processes that read samples (num_worker_per_gpu) hand them over in shared memory, and "
                         "/dev/shm is too small for that. Make it larger (docker run --shm-size=2g), or set "
                         "datasets.train.num_worker_per_gpu=0. What was saved is whole; go on with --resume auto")
    if "DataLoader worker" in text:
        return DataError("a process that reads samples (num_worker_per_gpu) was ended from outside "
                         f"({text.split('. ')[0]}). The system does so where memory runs out: set a smaller "
                         "datasets.train.num_worker_per_gpu (0 reads in the training process) or prefetch_factor. "
                         "What was saved is whole; go on with --resume auto")
    return None


def start_worker(worker_id: int = 0) -> None:
    """Prepare a worker: one core, and deaf to signals that are meant for the training process.

    Ctrl-C, a closed terminal and a cluster's warning go to the whole process group. The training process decides
    what they mean, and still needs its workers to finish its iteration; without it they end by themselves.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.excepthook = _report_unless_broken
    single_threaded(worker_id)


def _report_unless_broken(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of `sys.excepthook` in a worker.

    Its thread that hands batches over reports there that the training process, which ended, does not fetch them. Errors
    of the data set go another way.
    """
    if not isinstance(error, (OSError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def single_threaded(worker_id: int = 0) -> None:
    """Keep a worker on one core: many workers with many threads each slow one another down."""
    torch.set_num_threads(1)
    try:
        import cv2  # where it is missing, there is nothing to set
    except ImportError:
        return
    cv2.setNumThreads(0)


class _ErrorsAsSamples(Dataset):
    """Gives a data set's errors instead of raising them, so that they pass through a worker unchanged."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(cast("Sized", self.dataset))

    def __getitem__(self, index: SampleIndex | int) -> dict | K3DNError:
        try:
            return self.dataset[index]
        except K3DNError as error:
            return error


def _collate_with_errors(samples: Sequence[dict | K3DNError]) -> dict | K3DNError:
    errors = [sample for sample in samples if isinstance(sample, K3DNError)]
    if errors:
        return errors[0]
    try:
        return collate([sample for sample in samples if not isinstance(sample, K3DNError)])
    except K3DNError as error:
        return error
