"""Jobs: the pieces of work of a comparison, when one is done, and running them all on a back end.

A job is done when its result lies there for the same *content*: weights, settings, data, protocol and code enter its
key as hashes, paths do not. The result names its output files with their hashes, so that a changed or lost output
makes the job undone too.
"""
import json
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k3dn_plugin.errors import TrainingError
from k3dn_plugin.evaluation.provenance import text_hash
from k3dn_plugin.evaluation.results import plain, write_json
from k3dn_plugin.files import file_hash

POLL_SECONDS = 0.1
LOG_LINES = 6


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
        kind: "train" or "score".
        title: for messages.
        identity: hashes and settings that decide the result, as plain data.
        spec: what the worker needs besides: paths, device.
        folder: where it works.
        done: the file that a finished job leaves.
        needs: of the machine.
    """

    kind: str
    title: str
    identity: dict
    spec: dict
    folder: Path
    done: Path
    needs: Needs = field(default=Needs())

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

    def write_spec(self) -> Path:
        """Write what the worker reads, and remove a result of other content."""
        self.done.unlink(missing_ok=True)
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


class Backend(ABC):
    """Runs jobs (`comparison/jobs.py`), each by `python -m k3dn_plugin.comparison.worker SPEC` or the same in Python.

    The folder of the comparison and the data are seen by path wherever a job runs; so a comparison begun on one back
    end goes on on another.
    """

    @abstractmethod
    def has_room(self, job: Job) -> bool:
        """Whether the job can start now."""

    @abstractmethod
    def submit(self, job: Job) -> Hashable:
        """Start the job and return a handle."""

    @abstractmethod
    def poll(self, handle: Hashable) -> int | None:
        """Return None while the job runs, then its exit status once."""

    @abstractmethod
    def cancel(self, handle: Hashable) -> None:
        """Ask a running job to stop (training saves its state) and wait for it."""

    def log(self, job: Job) -> str:
        """Return what the job has printed."""
        try:
            return job.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return f"(no log: {error})"


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
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def run_jobs(jobs: Sequence[Job], backend: Backend, *, log: Callable[[str], object] = print) -> None:
    """Run all jobs that are not done, as many at a time as the back end has room for.

    A failed job stops the rest from being started; what is done stays, and the same call goes on.

    Raises:
        TrainingError: a job failed; the message names its log and shows the end of it.
    """
    waiting = deque(job for job in jobs if not job.is_done())
    total, finished, began, failed = len(waiting), 0, time.monotonic(), []
    running = {}
    if len(jobs) > total:
        log(f"{len(jobs) - total} of {len(jobs)} jobs were done before and are kept")
    try:
        while running or (waiting and not failed):
            while waiting and not failed and backend.has_room(waiting[0]):
                job = waiting.popleft()
                log(f"start   {job.title}")
                running[backend.submit(job)] = job
            for handle in list(running):
                status = backend.poll(handle)
                if status is None:
                    continue
                job = running.pop(handle)
                if status or not job.is_done():
                    failed.append(job)
                    continue
                finished += 1
                left = (time.monotonic() - began) / finished * (total - finished)
                log(f"done    {job.title} ({finished} of {total}, about {left / 60:.0f} min left)")
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        for handle in running:
            backend.cancel(handle)
    if failed:
        end = "\n".join(backend.log(failed[0]).splitlines()[-LOG_LINES:])
        raise TrainingError(f"{failed[0].title} failed; its log {failed[0].log_path} ends with:\n{end}\nWhat is done "
                            "is kept: fix the cause and run the same command again")
