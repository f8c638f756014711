"""Jobs: the pieces of work of a comparison, when one is done, and the back ends that run them.

A job is done when its result lies there for the same *content*: weights, settings, data, protocol and code enter its
key as hashes, paths do not. The result names its output files with their hashes, so that a changed or lost output
makes the job undone too.
"""
import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3dn_plugin.errors import DataError
from k3dn_plugin.evaluation.provenance import text_hash
from k3dn_plugin.evaluation.results import plain, write_json
from k3dn_plugin.files import NO_LOCKS, file_hash, is_current, read_file

WORKER = "k3dn_plugin.comparison.worker"


@dataclass(frozen=True)
class Needs:
    """What a job needs of a machine.

    Attributes:
        cpus, gpus: how many.
        memory_gb: of main memory; None where it is not known.
    """

    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None


@dataclass(frozen=True)
class Job:
    """One process's work.

    Attributes:
        kind: "train", "score", "measure" or "steps" (`worker.py`), or what `module` knows.
        title: for messages.
        identity: hashes and settings that decide the result, as plain data.
        spec: what the worker needs besides: paths, device.
        folder: where it works.
        done: the file that a finished job leaves.
        needs: of the machine.
        counted: the CSV file that grows while the job runs, and how far it is then: iterations of a training, rows of
            anything else. None for jobs that take a moment.
        module: the worker, run as `python -m MODULE SPEC PARENT`.
    """

    kind: str
    title: str
    identity: dict
    spec: dict
    folder: Path
    done: Path
    needs: Needs = field(default=Needs())
    counted: tuple[Path, int] | None = None
    module: str = WORKER

    @property
    def key(self) -> str:
        """What the result belongs to."""
        return text_hash([self.kind, plain(self.identity)])

    @property
    def spec_path(self) -> Path:
        """The JSON file that the worker reads."""
        return self.folder / f"{self.kind}.json"

    @property
    def log_path(self) -> Path:
        """The worker's output."""
        return self.folder / f"{self.kind}.log"

    @property
    def place_path(self) -> Path:
        """Where the worker says on which machine it is at work."""
        return self.folder / f"{self.kind}.place.json"

    def place(self) -> dict | None:
        """Return where and since when the job is at work (`host`, `process`, `since`); None before it has begun."""
        return read_json(self.place_path)

    def write_spec(self) -> Path:
        """Write what the worker reads, and remove a result of other content."""
        self.done.unlink(missing_ok=True)
        self.place_path.unlink(missing_ok=True)
        write_json(self.spec_path, {**self.spec, "kind": self.kind, "key": self.key, "done": str(self.done)})
        return self.spec_path

    def stored_key(self) -> str | None:
        """Return the key of the work that was begun in the folder, or None."""
        found = read_json(self.spec_path)
        return str(found.get("key")) if found else None

    def is_done(self) -> bool:
        """Whether a whole, unchanged result of this very content lies there."""
        found = read_json(self.done)
        if found is None or found.get("job") != self.key or found.get("check") != _check(found):
            return False
        return all(_same_file(self.folder / name, value) for name, value in found["outputs"].items())

    def result(self) -> dict:
        """Return what the finished job left."""
        return read_json(self.done) or {}


@dataclass(frozen=True)
class Shared:
    """What jobs reach by path, wherever they run.

    Attributes:
        out: the folder of the comparison.
        datasets: mappings that build the data sets.
        imports: modules that recipes import (`custom_imports`).
        weights: files, compared by content.
        sources: folders of many files, compared by the files' names and sizes.
        needs: what jobs need of a machine; one that cannot run any of them has to see nothing.
    """

    out: Path
    datasets: Sequence[Mapping[str, Any]] = ()
    imports: Sequence[str] = ()
    weights: Sequence[str] = ()
    sources: Sequence[str] = ()
    needs: Needs = field(default=Needs())


class Backend(ABC):
    """Runs jobs (`comparison/jobs.py`), each in a process of its own: `python -m k3dn_plugin.comparison.worker SPEC`.

    The folder of the comparison and the data are seen by path wherever a job runs; so a comparison begun on one back
    end goes on on another.
    """

    # Whether jobs wait in the back end's own queue and run elsewhere: then their output is shown, and their progress.
    remote = False

    def check(self, shared: Shared) -> None:  # noqa: B027 (a back end of one machine has nothing to check)
        """Make sure that every machine sees what jobs read and write, before anything runs.

        Raises:
            OptionError: one does not, or none can run the jobs; the message says which, and what it misses.
        """

    @abstractmethod
    def has_room(self, job: Job) -> bool:
        """Whether the job can be submitted now."""

    @abstractmethod
    def submit(self, job: Job) -> Hashable:
        """Start the job, or queue it, and return a handle."""

    @abstractmethod
    def poll(self, handle: Hashable) -> int | None:
        """Return None while the job runs, then its exit status."""

    @abstractmethod
    def cancel(self, handles: Collection[Hashable]) -> None:
        """Ask running jobs to stop (training saves its state), and wait for them; queued ones never start."""

    def log(self, job: Job) -> str:
        """Return what the job has printed."""
        try:
            return job.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return f"(no log: {error})"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no worker is at work in a job's folder: one of a killed comparison may still be saving its state.

    The lock is one of the file system, so it holds among the machines that share a folder as far as that has locks;
    where it has none (Lustre, unless mounted for them), nobody waits.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    path = folder / "worker.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                held = is_current(handle, path)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                held = True
            if held:
                yield
                return
        finally:
            os.close(handle)
        # While this process waited, the folder was put aside or removed, and perhaps made again: that lock is another.


def write_result(spec: dict, folder: Path, result: dict, outputs: Sequence[Path]) -> None:
    """Write the file that says that a job is done: its result, and the hashes of its output files.

    Args:
        spec: what the worker read.
        folder: of the job; outputs lie in it.
    """
    found = {**plain(result), "job": spec["key"],
             "outputs": {path.relative_to(folder).as_posix(): file_hash(path) for path in outputs}}
    write_json(spec["done"], {**found, "check": _check(found)})


def _check(found: dict) -> str:
    return text_hash({key: value for key, value in found.items() if key != "check"})


def _same_file(path: Path, value: str) -> bool:
    return path.is_file() and file_hash(path) == value


def read_json(path: Path) -> dict | None:
    """Return the mapping in a JSON file; None where there is none, or the file is damaged."""
    try:
        found = json.loads(read_file(path))
    except (DataError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
