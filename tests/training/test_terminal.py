"""The terminal never stops the work, signals save it, and a lost worker is one clear error."""
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_questions import assert_equal

from k3dn_plugin.console import LastingStream, lasting_output
from k3dn_plugin.data.loader import worker_error
from k3dn_plugin.errors import DataError
from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.training.stopping import StopRequest, explained

ROOT = Path(__file__).parents[2]


def newest(tmp_path, name="tiny"):
    return load_state(state_files(tmp_path / "experiments" / name / "states")[0])


@pytest.mark.parametrize("redirection, name", [
    ("| head -n 1; exit ${PIPESTATUS[0]}", "tiny"), (">&- 2>&-", "tiny"), ("> /dev/full 2>&1", "tiny"),
    ("", "mod\u00e8le")])
def test_the_terminal_never_stops_the_work(redirection, name, recipe, tmp_path):
    path = recipe({"name": name, "val": {"val_freq": 100}, "datasets": {"val": None}})
    line = f"{sys.executable} {ROOT / 'tools' / 'train.py'} -opt {path} --device cpu {redirection}"
    helpers = ROOT / "tests" / "helpers"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=100, env={
        **os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": f"{helpers}:{helpers.parent / 'training'}"})
    assert done.returncode == 0, done.stderr.decode()
    assert "Traceback" not in done.stderr.decode() and "Exception ignored" not in done.stderr.decode()
    assert newest(tmp_path, name)["iteration"] == 8


class Broken(io.StringIO):
    encoding = "ascii"

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), OSError(5, "gone"), ValueError("closed")])
def test_a_stream_that_breaks_is_written_to_no_more(error):
    stream = LastingStream(Broken(error))
    assert stream.write("one") == 3 and stream.broken
    stream.stream.error = AssertionError("asked again")
    print("two", file=stream, flush=True)


def test_characters_that_the_encoding_does_not_have():
    raw = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(raw, "ascii"))
    print("mod\u00e8le \u2588", file=stream, flush=True)
    assert raw.getvalue() == b"mod\\xe8le \\u2588\n" and not stream.broken


def test_streams_are_put_back(monkeypatch):
    before = io.StringIO()
    monkeypatch.setattr(sys, "stdout", before)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_output():
        print("x")
        print("y", file=sys.stderr)
        with lasting_output():
            print("z")
    assert sys.stdout is before and sys.stderr is None and before.getvalue() == "x\nz\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_closed_session_and_a_cluster_s_warning_save(number, recipe, child, trained, tmp_path):
    code, output = child("-opt", recipe(), TINY_SIGNAL=f"{int(number)}:5").wait()
    assert code == 128 + number and f"{number.name} received" in output, output
    stopped = newest(tmp_path)
    assert stopped["iteration"] == 5
    trained(resume="auto")
    resumed = newest(tmp_path)
    trained(overwrite=True)
    for state in (resumed, whole := newest(tmp_path)):
        del state["seconds"]
    assert_equal(resumed, whole)


def test_nohup_stays():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(print) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == 0
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.signal == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGHUP, before)


def workers_of(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(entry.name))
            except (OSError, ValueError):
                continue
    return found


def started_with_workers(recipe, child, **more):
    path = recipe({"train": {"total_iter": 4000}, "datasets": {"train": {"num_worker_per_gpu": 2}, "val": None},
                   "logger": {"save_checkpoint_freq": 2}, **more})
    running = child("-opt", path, TINY_SLOW=0.02)
    while "saved" not in running.output():
        assert running.process.is_alive(), running.output()
        time.sleep(0.02)
    return running, workers_of(running.process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_signal_to_the_whole_group_saves_and_leaves_no_worker(recipe, child, tmp_path):
    running, workers = started_with_workers(recipe, child)
    assert len(workers) == 2
    for pid in (*workers, running.process.pid):
        os.kill(pid, signal.SIGTERM)
    code, output = running.wait()
    assert code == 143 and "Traceback" not in output, output
    assert f"stopped after iteration {newest(tmp_path)['iteration']:,}" in output
    assert not [pid for pid in workers if (Path("/proc") / str(pid)).exists()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_is_one_clear_error(recipe, child):
    running, workers = started_with_workers(recipe, child)
    os.kill(workers[0], signal.SIGKILL)
    code, output = running.wait()
    assert code == 2 and "Traceback" not in output, output
    error = next(line for line in output.splitlines() if line.startswith("error: "))
    assert "was ended from outside" in error and "num_worker_per_gpu" in error and "--resume auto" in error


@pytest.mark.parametrize("text, said", [
    ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
     "shared memory. Please try to raise your shared memory limit.", "/dev/shm is too small"),
    ("unable to write to file </torch_7_1>: No space left on device (28)", "/dev/shm is too small"),
    ("DataLoader worker (pid(s) 7) exited unexpectedly", "was ended from outside"), ("another", None)])
def test_what_torch_says_of_lost_workers(text, said, trained):
    found = worker_error(RuntimeError(text))
    assert found is None if said is None else said in str(found)
    if said:
        with pytest.raises(DataError, match=said), explained(None, None):
            raise RuntimeError(text)


def test_a_connection_that_breaks_because_a_worker_died_is_the_same_error(monkeypatch):
    from torch.utils.data import DataLoader

    from k3dn_plugin.data.loader import SampleLoader

    class Lost:
        exitcode = -9
        join = staticmethod(lambda seconds: None)
        is_alive = staticmethod(lambda: False)

    class Broken:
        def __init__(self, *workers):
            self._workers, self._shutdown_workers = workers, lambda: None

        def __iter__(self):
            raise ConnectionRefusedError(111, "Connection refused")
            yield

    loader = SampleLoader([1, 2], num_workers=1)
    monkeypatch.setattr(DataLoader, "__iter__", lambda self: Broken(Lost))
    with pytest.raises(DataError, match="was ended from outside"):
        next(iter(loader))
    monkeypatch.setattr(DataLoader, "__iter__", lambda self: Broken())
    with pytest.raises(ConnectionRefusedError):
        next(iter(loader))


def test_a_worker_reports_all_but_broken_connections(capsys):
    from k3dn_plugin.data.loader import _report_unless_broken
    for error in (ConnectionResetError(104, "reset"), EOFError(), RuntimeError("a bug")):
        _report_unless_broken(type(error), error, None)
    assert capsys.readouterr().err == "RuntimeError: a bug\n"
