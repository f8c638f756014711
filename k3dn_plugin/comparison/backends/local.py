"""Processes of this machine."""
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from k3dn_plugin.comparison.jobs import Backend, Job
from k3dn_plugin.errors import OptionError

STOP_SECONDS = 60   # that a worker has to save its state


class LocalBackend(Backend):
    """Starts each job as a process.

    Args:
        jobs: processes at a time.
        devices: names that running jobs take turns on ("cpu", or "cuda:0", "cuda:1", ...).

    Raises:
        OptionError: no job may run, or there is no device.
    """

    def __init__(self, *, jobs: int = 1, devices: Sequence[str] = ("cpu",)):
        if jobs < 1 or not devices:
            raise OptionError(f"--jobs {jobs}, --devices {' '.join(devices) or 'none'}: expected at least one job and "
                              "one device")
        self.jobs = jobs
        self._free = deque(devices[number % len(devices)] for number in range(jobs))
        self._devices: dict[subprocess.Popen, str] = {}

    def has_room(self, job: Job) -> bool:
        """Whether fewer processes run than may."""
        return bool(self._free)

    def submit(self, job: Job) -> subprocess.Popen:
        """Start the worker's process."""
        device = self._free.popleft()
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(Path(__file__).resolve().parents[3]), environment.get("PYTHONPATH")) if part)
        if self.jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // self.jobs, 1)))
        if device.startswith("cuda:"):
            environment["CUDA_VISIBLE_DEVICES"] = device.partition(":")[2]
        with open(job.log_path, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "k3dn_plugin.comparison.worker", str(job.write_spec())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self._devices[process] = device
        return process

    def poll(self, handle: subprocess.Popen) -> int | None:
        """Return the exit status once the process has ended."""
        status = handle.poll()
        if status is not None and handle in self._devices:
            self._free.append(self._devices.pop(handle))
        return status

    def cancel(self, handle: subprocess.Popen) -> None:
        """Ask the process to stop; it is killed where it does not."""
        handle.terminate()
        try:
            handle.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            handle.kill()
            handle.wait()
