import errno
import os
import signal
import time
from pathlib import Path

import pytest

from k3dn_plugin import files
from k3dn_plugin.errors import CheckpointError, DataError, StorageError
from k3dn_plugin.files import FolderLock, atomic_write, file_hash, read_file, storage_error, user_path

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(function):
    """Run `function` in a forked process and return its exit status, 1 for an error."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(function() or 0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_stays(tmp_path, monkeypatch):
    def killed():
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert in_child(killed) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.part"))) == 1
    with atomic_write(tmp_path / "busy.bin") as busy:
        busy.write(b"first ")

        def other():
            files._swept.clear()
            with atomic_write(tmp_path / "b.bin") as file:
                file.write(b"second")
        assert in_child(other) == 0
        busy.write(b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"busy.bin", "b.bin"}
    assert (tmp_path / "busy.bin").read_bytes() == b"first whole"


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("keep me")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".lock").symlink_to(secret)
    with pytest.raises(StorageError, match="could not write"):
        FolderLock(folder, "training")
    (folder / "a.txt").symlink_to(secret)
    with atomic_write(folder / "a.txt", "w") as file:
        file.write("new")
    (folder / ".x.part").symlink_to(secret)
    files._swept.clear()
    files.remove_leftovers(folder)
    assert secret.read_text() == "keep me" and not (folder / "a.txt").is_symlink()


def test_a_name_of_244_bytes_can_be_written(tmp_path):
    name = "é" * 120 + ".png"
    with atomic_write(tmp_path / name) as file:
        file.write(b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_make_room_is_said_only_when_the_disk_is_full(tmp_path):
    full = storage_error(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"))
    assert "Make room" in str(full) and "MiB free" in str(full)
    for number in (errno.EACCES, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO, errno.ELOOP):
        assert "Make room" not in str(storage_error(tmp_path / "x" / "a", OSError(number, os.strerror(number))))
    for path in ("x" * 300, "a\0b"):
        with pytest.raises(StorageError, match="Choose another path"), atomic_write(tmp_path / path):
            pass


@forks
def test_a_folder_has_one_owner(tmp_path):
    def second():
        try:
            FolderLock(tmp_path, "scoring").release()
        except StorageError as error:
            return 7 if f"process {os.getppid()} on " in str(error) and "(training since" in str(error) else 8
    with FolderLock(tmp_path, "training"):
        assert in_child(second) == 7
        with pytest.raises(StorageError, match="in use"):
            FolderLock(tmp_path, "training")
        assert in_child(second) == 7  # the refused try above did not give the lock free
    assert in_child(second) == 0
    assert not list(tmp_path.iterdir())


@forks
def test_a_lock_ends_with_its_process_though_a_forked_worker_lives_on(tmp_path):
    def owner():
        lock = FolderLock(tmp_path, "training")
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        (tmp_path / "ready").touch()
        time.sleep(20)
        lock.release()
    child = os.fork()
    if child == 0:
        os.setsid()
        owner()
        os._exit(0)
    try:
        for _ in range(500):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.01)
        with pytest.raises(StorageError, match="in use"):
            FolderLock(tmp_path, "training")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        FolderLock(tmp_path, "training").release()
    finally:
        os.killpg(child, signal.SIGKILL)


def test_what_cannot_be_read_is_one_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "large").write_bytes(bytes(100))
    for name, message in [("pipe", "a pipe"), ("loop", "cannot be read"), ("none", "there is no file"),
                          ("a\0b", "null"),
                          ("x" * 300, "cannot be read"), ("", "it is a folder"), ("large", "has 100 bytes, more than")]:
        with pytest.raises(CheckpointError, match=message):
            read_file(os.path.join(tmp_path, name), most=99, error=CheckpointError)
    assert read_file(tmp_path / "large") == bytes(100)
    if os.geteuid():
        (tmp_path / "large").chmod(0)
        with pytest.raises(DataError, match="Change its permissions"):
            read_file(tmp_path / "large")


def test_home_and_variables_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.chdir(tmp_path)
    assert user_path("~/a") == Path("/home/somebody/a") and user_path("${DATA}/b") == Path("/data/b")
    assert user_path("$NOT_SET/a") == Path("$NOT_SET/a")
    Path("$DATA").mkdir()
    assert user_path("$DATA") == Path("$DATA")
    with pytest.raises(DataError, match="null character"):
        user_path("a\0b")


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert file_hash(tmp_path / "a") == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
