"""Running all jobs of a comparison on a back end, and saying how far they are."""
import csv
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tabulate import tabulate

from k3dn_plugin.comparison.jobs import Backend, Job
from k3dn_plugin.errors import TrainingError

POLL_SECONDS = 0.1
REMOTE_POLL_SECONDS = 0.5   # each look reads a small file a job in the shared folder
LOG_LINES = 6
TABLE_SECONDS = 60     # between two tables of jobs that run elsewhere
SETTLE_SECONDS = 30    # until a file that another machine has written is seen in a shared folder
Log = Callable[[str], object]


def run_jobs(jobs: Sequence[Job], backend: Backend, *, log: Log = print, table_seconds: float = TABLE_SECONDS) -> None:
    """Run all jobs that are not done, as many at a time as the back end has room for.

    A failed job stops the rest from being started; what is done stays, and the same call goes on.

    Args:
        table_seconds: between two tables of progress, where jobs run on other machines.

    Raises:
        TrainingError: a job failed; the message names its log and shows the end of it.
    """
    waiting = deque(job for job in jobs if not job.is_done())
    if len(jobs) > len(waiting):
        log(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs were done before and are kept")
    progress, running, failed = Progress(waiting, log, table_seconds), {}, []
    try:
        while running or (waiting and not failed):
            while waiting and not failed and backend.has_room(waiting[0]):
                job = waiting.popleft()
                if not backend.remote:
                    log(f"start   {job.title}")
                progress.submitted(job, at_work=not backend.remote)  # before it can print anything
                running[backend.submit(job)] = job
            for handle in list(running):
                status = backend.poll(handle) if handle in running else None
                if status is None:
                    continue
                job = running.pop(handle)
                if backend.remote:
                    progress.follow([job])
                if status or not _settled(job, backend):
                    failed.append((job, status))
                    _drop_queued(backend, running)
                else:
                    progress.finished(job)
            if backend.remote:
                progress.follow(running.values())
                progress.show_now_and_then()
            if running:
                time.sleep(REMOTE_POLL_SECONDS if backend.remote else POLL_SECONDS)
    finally:
        backend.cancel(list(running))
    if failed:
        job, status = failed[0]
        end = "\n".join(backend.log(job).splitlines()[-LOG_LINES:])
        raise TrainingError(f"{job.title} failed{_ended_by(status)}; its log {job.log_path} ends with:\n{end}\nWhat is "
                            "done is kept: fix the cause and run the same command again")


def _ended_by(status: int) -> str:
    """The signal that ended a process, which cannot say so itself."""
    if status >= 0:
        return ""
    killed = ", as the system does when memory runs out" * (status == -signal.SIGKILL)
    return f" (it was ended by signal {-status}{killed})"


def _settled(job: Job, backend: Backend) -> bool:
    """Whether the job is done; a shared folder may show what another machine wrote a little later."""
    last = time.monotonic() + (SETTLE_SECONDS if backend.remote else 0)
    while not job.is_done():
        if time.monotonic() >= last:
            return False
        time.sleep(1)
    return True


def _drop_queued(backend: Backend, running: dict[Hashable, Job]) -> None:
    """Take jobs that have not begun out of the back end's queue."""
    queued = [handle for handle, job in running.items() if backend.remote and job.place() is None]
    backend.cancel(queued)
    for handle in queued:
        del running[handle]


@dataclass
class _State:
    """How far one job is, as it was seen."""

    job: Job
    log_offset: int
    place: dict | None = None
    at_work: bool = False
    began: float = 0.0
    at_beginning: int = 0
    seconds: float | None = None   # that it took, once it is done


class Progress:
    """What is known of a batch of jobs: where each runs, how far it is, how long the rest will take.

    Args:
        jobs: that are still to be done.
        log: called with each line for the user.
        table_seconds: between two tables.
    """

    def __init__(self, jobs: Iterable[Job], log: Log, table_seconds: float = TABLE_SECONDS):
        self._states = {job.spec_path: _State(job, 0) for job in jobs}  # two jobs may be of one content
        self._log, self._every, self._shown = log, table_seconds, time.monotonic()

    def submitted(self, job: Job, *, at_work: bool) -> None:
        """Note that a job is about to be started or queued; what its log holds already is of an earlier attempt."""
        state = self._states[job.spec_path]
        state.at_work = at_work
        state.log_offset = job.log_path.stat().st_size if job.log_path.exists() else 0
        state.began, state.at_beginning = time.monotonic(), steps_done(job)

    def finished(self, job: Job) -> None:
        """Note that a job is done, and say how many are."""
        state = self._states[job.spec_path]
        state.seconds = time.monotonic() - state.began
        done = sum(one.seconds is not None for one in self._states.values())
        left = self.seconds_left()
        self._log(f"done    {job.title} ({done} of {len(self._states)}"
                  + (f", about {timedelta(seconds=round(left))} left)" if left else ")"))

    def follow(self, jobs: Iterable[Job]) -> None:
        """Show where jobs have begun, and what they have printed since the last call."""
        for job in jobs:
            state, place = self._states[job.spec_path], job.place()
            if place is not None and place != state.place:
                again = "" if state.place is None else " again, from what is saved"
                self._log(f"start   {job.title} on {_where(place)}{again}")
                state.place, state.at_work = place, True
                state.began, state.at_beginning = time.monotonic(), steps_done(job)
            for line in self._new_lines(state):
                self._log(f"[{job.title}] {line}")

    def _new_lines(self, state: _State) -> list[str]:
        try:
            with open(state.job.log_path, "rb") as file:
                file.seek(state.log_offset)
                text = file.read()
        except OSError:
            return []
        whole = text[:text.rfind(b"\n") + 1]
        state.log_offset += len(whole)
        return whole.decode("utf-8", "replace").splitlines()

    def show_now_and_then(self) -> None:
        """Show the table, where the last one is long ago."""
        if time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            self._log(self.table())

    def table(self) -> str:
        """Return a row a job: where it runs, how far it is, and about how long it still takes."""
        rows = []
        for state in self._states.values():
            if state.seconds is not None:
                rows.append([state.job.title, "done", "", "100 %", ""])
                continue
            left, share = _seconds_left(state), _share(state)
            rows.append([state.job.title, "runs" if state.at_work else "waits",
                         _where(state.place), "" if share is None else f"{100 * share:.0f} %",
                         "" if left is None else str(timedelta(seconds=round(left)))])
        left = self.seconds_left()
        end = "" if left is None else f"\nabout {timedelta(seconds=round(left))} left"
        return tabulate(rows, ["job", "state", "on", "done", "left"], tablefmt="plain") + end

    def seconds_left(self) -> float | None:
        """Return about how long all jobs together still take; None where nothing tells yet.

        Jobs that have not begun count as the mean of those whose length is known, and as many run at a time as now.
        """
        known, left, unknown = [], [], 0
        for state in self._states.values():
            rest = _seconds_left(state)
            if state.seconds is not None:
                known.append(state.seconds)
            elif rest is not None:
                left.append(rest)
                known.append(rest / max(1 - (_share(state) or 0.0), 1e-3))
            else:
                unknown += 1
        if not known:
            return None
        at_work = sum(state.at_work and state.seconds is None for state in self._states.values())
        return max([(sum(left) + unknown * sum(known) / len(known)) / max(at_work, 1), *left])


def _where(place: dict | None) -> str:
    """The machine, and the node of the cluster where there may be several with one name."""
    if place is None:
        return ""
    return str(place.get("host")) + (f" (node {place['node']})" if place.get("node") else "")


def steps_done(job: Job) -> int:
    """Return how many iterations or images of a job are done, as its growing file says."""
    if job.counted is None:
        return 0
    try:
        with open(job.counted[0], newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
        return int(rows[-1]["iteration"]) if rows and "iteration" in rows[-1] else len(rows)
    except (OSError, ValueError, TypeError, csv.Error):
        return 0


def _share(state: _State) -> float | None:
    if state.job.counted is None or not state.began:
        return None
    return min(steps_done(state.job) / max(state.job.counted[1], 1), 1.0)


def _seconds_left(state: _State) -> float | None:
    """About how long a running job still takes; None where it has done nothing yet that could be counted."""
    if state.job.counted is None or state.seconds is not None or not state.began:
        return None
    done = steps_done(state.job)
    if done <= state.at_beginning:
        return None
    each = (time.monotonic() - state.began) / (done - state.at_beginning)
    return each * max(state.job.counted[1] - done, 0)
