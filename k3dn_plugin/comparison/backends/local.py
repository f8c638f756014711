"""Processes of this machine."""
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path

from k3dn_plugin.comparison.jobs import Backend, Job
from k3dn_plugin.errors import OptionError

STOP_SECONDS = 60   # that a worker has to save its state


def python_path() -> str:
    """Return the PYTHONPATH with which a worker finds this very package, and what its recipes import."""
    return os.pathsep.join(part for part in (str(Path(__file__).resolve().parents[3]),
                                             os.environ.get("PYTHONPATH")) if part)


class LocalBackend(Backend):
    """Starts each job as a process.

    Args:
        jobs: processes at a time.
        devices: names that running jobs take turns on ("cpu", or "cuda:0", "cuda:1", ...).
        threads: of each; None shares this machine's processors among the jobs.

    Raises:
        OptionError: no job may run, or there is no device.
    """

    def __init__(self, *, jobs: int = 1, devices: Sequence[str] = ("cpu",), threads: int | None = None):
        if jobs < 1 or not devices:
            raise OptionError(f"--jobs {jobs}, --devices {' '.join(devices) or 'none'}: expected at least one job and "
                              "one device")
        self.jobs, self.threads = jobs, threads
        self._free = deque(devices[number % len(devices)] for number in range(jobs))
        self._devices: dict[subprocess.Popen, str] = {}

    def has_room(self, job: Job) -> bool:
        """Whether fewer processes run than may."""
        return bool(self._free)

    def submit(self, job: Job) -> subprocess.Popen:
        """Start the worker's process."""
        device = self._free.popleft()
        environment = {**os.environ, "PYTHONPATH": python_path()}
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        elif self.jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // self.jobs, 1)))
        if device.startswith("cuda:"):
            environment["CUDA_VISIBLE_DEVICES"] = device.partition(":")[2]
        spec = job.write_spec()  # makes the folder, too, where that has gone since the job was planned
        with open(job.log_path, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", job.module, str(spec), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self._devices[process] = device
        return process

    def poll(self, handle: subprocess.Popen) -> int | None:
        """Return the exit status once the process has ended."""
        status = handle.poll()
        if status is not None and handle in self._devices:
            self._free.append(self._devices.pop(handle))
        return status

    def cancel(self, handles: Collection[subprocess.Popen]) -> None:
        """Ask the processes to stop; those that do not are killed."""
        for handle in handles:
            handle.terminate()
        last = time.monotonic() + STOP_SECONDS
        for handle in handles:
            try:
                handle.wait(max(last - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                handle.kill()
                handle.wait()
