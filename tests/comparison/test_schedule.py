"""Running jobs on a back end of another machine: queued, shown, lost, failed; how long the rest takes."""
import json

import pytest

from k3dn_plugin.comparison import schedule
from k3dn_plugin.comparison.jobs import Backend, Job, write_result
from k3dn_plugin.comparison.schedule import Progress, run_jobs
from k3dn_plugin.errors import TrainingError


def job(folder, name, steps=4, content=None):
    place = folder / name
    place.mkdir(parents=True)
    return Job("score", name, {"name": content or name}, {}, place, place / "done.json",
               counted=(place / "rows.csv", steps))


class Elsewhere(Backend):
    """A machine that does a step of each of its first `slots` jobs at each poll."""

    remote = True

    def __init__(self, slots=2, fails=(), moves=()):
        self.slots, self.fails, self.moves = slots, fails, set(moves)
        self.queue, self.cancelled = [], []

    def has_room(self, job):
        return True

    def submit(self, job):
        job.write_spec()
        with open(job.log_path, "a") as log:
            log.write("in time\n")  # the machine may be faster than this process
        self.queue.append(job)
        return job.title

    def poll(self, handle):
        job = next(one for one in self.queue if one.title == handle)
        if job not in self.queue[:self.slots]:
            return None
        rows = job.counted[0]
        done = rows.read_text().splitlines() if rows.exists() else ["name"]
        if len(done) == 1 or (job.title in self.moves and len(done) == 3):
            self.moves.discard(job.title if len(done) == 3 else None)
            job.place_path.write_text(json.dumps({"host": f"machine{len(done)}", "process": len(done)}))
        with open(job.log_path, "a") as log:
            log.write(f"step {len(done)}\n")
        if job.title in self.fails:
            return 1
        rows.write_text("\n".join([*done, "row"]) + "\n")
        if len(done) < job.counted[1]:
            return None
        self.queue.remove(job)
        write_result(json.loads(job.spec_path.read_text()), job.folder, {}, [])
        return 0

    def cancel(self, handles):
        self.cancelled += handles
        self.queue = [one for one in self.queue if one.title not in handles]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0)
    monkeypatch.setattr(schedule, "SETTLE_SECONDS", 0)


def test_jobs_are_shown_where_they_run_with_what_they_print(tmp_path):
    lines = []
    jobs = [job(tmp_path, name) for name in ("one", "two", "three")]
    run_jobs(jobs, Elsewhere(moves=["two"]), log=lines.append, table_seconds=0)
    assert all(one.is_done() for one in jobs)
    assert "start   one on machine1" in lines and "start   two on machine3 again, from what is saved" in lines
    assert [line for line in lines if line.startswith("[three]")] == [
        "[three] in time", *(f"[three] step {n}" for n in (1, 2, 3, 4))]
    assert any(line.startswith("done    three (3 of 3") for line in lines)
    table = next(line for line in lines if "50 %" in line)
    assert table.split()[:5] == ["job", "state", "on", "done", "left"] and "waits" in table and "left" in table
    again = []
    run_jobs(jobs, Elsewhere(), log=again.append)
    assert again == ["3 of 3 jobs were done before and are kept"]


def test_two_jobs_of_one_content_are_two(tmp_path):
    lines = []
    run_jobs([job(tmp_path, "center", content="same"), job(tmp_path, "nothing", content="same")], Elsewhere(),
             log=lines.append)
    assert [line for line in lines if "(2 of 2" in line]


def test_a_failure_takes_the_queued_jobs_back(tmp_path):
    jobs = [job(tmp_path, name) for name in ("good", "bad", "later")]
    machine = Elsewhere(fails=["bad"])
    with pytest.raises(TrainingError, match="bad failed"):
        run_jobs(jobs, machine, log=lambda text: None)
    assert jobs[0].is_done() and not jobs[2].is_done()
    assert machine.cancelled == ["later"]


def test_the_time_left_counts_jobs_that_have_not_begun(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    jobs = [job(tmp_path, name, steps=10) for name in "abc"]
    progress = Progress(jobs, lambda text: None)
    assert progress.seconds_left() is None
    progress.submitted(jobs[0], at_work=True)
    now[0] += 20
    jobs[0].counted[0].write_text("name\n" + "row\n" * 4)
    # 5 s an image: 30 s for the rest of the first, 50 s for each of the two others, one at a time.
    assert progress.seconds_left() == pytest.approx(130, rel=0.01)
    progress.submitted(jobs[1], at_work=True)
    assert progress.seconds_left() == pytest.approx(65, rel=0.01)
    progress.finished(jobs[0])
    progress.finished(jobs[1])
    progress.submitted(jobs[2], at_work=True)
    progress.finished(jobs[2])
    assert progress.seconds_left() == 0
