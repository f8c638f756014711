"""Folders of jobs that vanish or move while somebody waits for them, and file systems without locks."""
import errno
import fcntl
import os
import signal
import threading
import time

import pytest

from k3dn_plugin.comparison.backends.local import LocalBackend
from k3dn_plugin.comparison.jobs import Job, alone
from k3dn_plugin.comparison.schedule import run_jobs
from k3dn_plugin.errors import TrainingError


def locked(folder):
    """Whether somebody is at work in the folder."""
    handle = os.open(folder / "worker.lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_who_waited_for_a_folder_that_was_put_aside_is_alone_in_the_new_one(tmp_path):
    folder, entered = tmp_path / "run", []
    folder.mkdir()

    def wait():
        with alone(folder):
            entered.append(locked(folder))
    with alone(folder):
        second = threading.Thread(target=wait)
        second.start()
        time.sleep(0.2)
        folder.rename(tmp_path / "older")
        folder.mkdir()
    second.join(10)
    assert entered == [True]


def test_a_file_system_without_locks_lets_all_in(tmp_path, monkeypatch):
    def flock(handle, how):
        raise OSError(errno.ENOSYS, "Function not implemented")
    monkeypatch.setattr(fcntl, "flock", flock)
    with alone(tmp_path):
        pass

    def broken(handle, how):
        raise OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), alone(tmp_path):
        pass


@pytest.fixture
def one(tmp_path):
    folder = tmp_path / "gone"
    return Job("train", "train x", {}, {}, folder, folder / "done.json", module="this")


def test_a_folder_that_is_gone_when_its_job_starts_is_one_error(one):
    with pytest.raises(TrainingError, match="train x failed; its log"):
        run_jobs([one], LocalBackend(), log=lambda text: None)
    assert "Namespaces are one honking great idea" in one.log_path.read_text()


def test_the_error_names_the_signal_that_ended_a_job(one, monkeypatch):
    backend = LocalBackend()
    monkeypatch.setattr(backend, "poll", lambda handle: -signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"train x failed \(it was ended by signal 9, .*memory runs out\); its log"):
        run_jobs([one], backend, log=lambda text: None)
