"""Files that are either whole or not there, folders with one owner, and paths as users write them.

What is written goes to a temporary file beside its target, is flushed to disk and renamed. Neither temporary files
nor locks follow a link that somebody else put in their place.
"""
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows: there are no locks, and what a killed process left is not removed
    fcntl = None

from k3dn_plugin.errors import DataError, K3DNError, StorageError

MOST_BYTES = 2**32    # of a file that is read into memory as a whole
MOST_NAME = 100       # characters of a label's file name
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)   # of a file system without locks

PACKAGE = Path(__file__).resolve().parent


def shared_folder(kind: str) -> Path:
    """Return the folder of shipped files of a kind: "options" (recipes) or "datasets" (official lists).

    In a checkout it lies beside the package; an installed copy has it within, under `_share`.
    """
    checkout = PACKAGE.parent
    # Beside an installed package lie other packages, one of them perhaps called `datasets`.
    beside = (checkout / "setup.cfg").is_file() and (checkout / kind).is_dir()
    return checkout / kind if beside else PACKAGE / "_share" / kind


def shared_file(kind: str, name: str) -> Path | None:
    """Return the shipped file `name` ("k3dn_dpdd.yml", "dpdd/train_pairs.txt") of a kind, or None."""
    path = shared_folder(kind) / name
    return path if path.is_file() else None


def shared_names(kind: str, suffix: str) -> list[str]:
    """Return the names of the shipped files of a kind that end in `suffix`, sorted."""
    return sorted(path.name for path in shared_folder(kind).glob(f"*{suffix}"))


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", *, encoding: str | None = None,
                 newline: str | None = None) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; it takes `path`'s place when the block ends without error.

    A reader sees the old file or the new one, never half of one, whenever the process is killed. What killed
    processes left behind in the folder is removed.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        handle, temporary = _temporary_file(path)
        with open(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            # mkstemp makes private files; a result should have the permissions of any other new file.
            os.chmod(temporary, 0o666 & ~_umask())
            os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "null" not in str(error):
            raise
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _temporary_file(path: Path) -> tuple[int, str]:
    """Return an open new file beside `path` and its name; it is locked while a process writes it."""
    while True:
        # The name of a long-named file is cut, since the temporary one has more characters.
        beginning = os.fsdecode(os.fsencode(path.name)[:200])
        handle, name = tempfile.mkstemp(prefix=f".{beginning}.", suffix=".part", dir=path.parent)
        try:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return handle, name
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # another process took it for a leftover before it was locked


_swept: set[str] = set()


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the `.NAME.xxxx.part` files that killed processes left in a folder, once for each process.

    A file that another process is still writing is locked and stays.
    """
    key = os.path.abspath(folder)
    if fcntl is None or key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".part")]
        for name in names:
            with contextlib.suppress(OSError):
                handle = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if stat.S_ISREG(os.fstat(handle).st_mode):
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(os.path.join(folder, name))
                finally:
                    os.close(handle)


def storage_error(path: str | os.PathLike[str], error: BaseException) -> StorageError:
    """Return the `StorageError` of a failed write to `path`: the reason and what to do next."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    if number in NO_ROOM:
        free = shutil.disk_usage(_existing(path)).free / 2**20
        reason += f" ({free:,.0f} MiB free there)"
        advice = "Make room or choose another folder"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "Choose a folder that you may write to, or change its permissions"
    elif number in (errno.ENOTDIR, errno.EEXIST):
        advice = "A file stands where a folder is needed: choose another path"
    elif number in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.ENOENT) or number is None:
        advice = "Choose another path"
    else:
        advice = "Check the disk, or choose another folder"
    return StorageError(f"could not write {path}: {reason}. {advice}; what was written before is untouched")


def _existing(path: str | os.PathLike[str]) -> str:
    """Return the nearest folder of `path` that is there."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Put a folder's entries on disk: only then does a rename in it survive a power cut."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def file_name(name: object) -> str:
    """Return a name (a label, a scene) as the name of a file or folder, one for each name.

    A name of ASCII letters, digits and `._+-` is its own; any other has the rest replaced by `_` and
    ends in a short hash of the name, so that two names never share a file. See `file_names` for disks that do not
    tell upper from lower case.
    """
    text = str(name)
    plain = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII)
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", plain, re.IGNORECASE)  # no files on Windows
    if plain == text and len(text) <= MOST_NAME and not device and not text.startswith((".", "-")) and text[-1:] != ".":
        # What looks like a name with a hash gets one too: it might be another name's.
        if not re.fullmatch(r".*-[0-9a-f]{8}", text):
            return text or _hashed("empty", text)
    return _hashed(plain.strip(".-")[:MOST_NAME] or "name", text)


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return `file_name` of each, with the hash also where two names differ in upper and lower case alone."""
    found = {name: file_name(name) for name in dict.fromkeys(names)}
    count = Counter(short.lower() for short in found.values())
    return {name: short if count[short.lower()] == 1 else _hashed(short, name) for name, short in found.items()}


def _hashed(short: str, name: str) -> str:
    return f"{short}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as the user means it: `~` and `$NAME` stand for what a shell makes of them.

    Raises:
        DataError: it holds a null character, which no path can.
    """
    text = os.fspath(path)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if "\0" in text:
        raise DataError(f"{text!r} cannot be a path: it holds a null character. Correct it")
    # A file whose name really has such a character comes first.
    return Path(text if os.path.lexists(text) else os.path.expandvars(os.path.expanduser(text)))


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open an ordinary file for reading.

    Raises:
        OSError: as `open`; and for a pipe or a device, which would be waited for without end, or have no end.
    """
    # A pipe would block already when it is opened.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise OSError(errno.EINVAL, f"it is {kind}; expected a file", os.fspath(path))
    return open(handle, "rb")


def read_file(path: str | os.PathLike[str], *, most: int = MOST_BYTES, error: type[K3DNError] = DataError) -> bytes:
    """Read a whole file into memory.

    Args:
        path: an ordinary file; a pipe or a device would be waited for without end.
        most: bytes that it may have.
        error: class of the error that is raised.

    Raises:
        K3DNError: there is no such file, it may not be read, is no ordinary file, or is larger than `most`.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise error(f"{path}: cannot be read: the file has {size:,} bytes, more than the {most:,} that such a "
                            "file may have")
            return file.read()
    except FileNotFoundError:
        raise error(f"there is no file {path}") from None
    except (OSError, ValueError) as failed:
        reason = getattr(failed, "strerror", None) or str(failed)
        advice = ". Change its permissions, or give a file that you may read" * (
            getattr(failed, "errno", 0) in (errno.EACCES, errno.EPERM))
        name = str(path) if str(path).isprintable() else repr(str(path))
        raise error(f"{name}: cannot be read ({reason}){advice}") from None
    except MemoryError:
        raise error(f"{path}: cannot be read: there is not enough memory for the file") from None


def files_below(place: str | os.PathLike[str]) -> list[Path]:
    """Return all files below a folder, sorted; a file is the only one below itself."""
    path = Path(place)
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, or of a picture inside a file that knows its own (`ParquetImage`)."""
    own_hash = getattr(path, "sha256", None)
    if own_hash is not None:
        return own_hash()
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def is_current(handle: int, path: Path) -> bool:
    """Return whether an open lock file still lies at its path: its owner, or a moved folder, may have taken it away."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


class FolderLock:
    """One owner for a folder, or for a file that is being made: while it is held, no other process gets it.

        with FolderLock(folder, "training"):
            ...

    The lock is a small file that says who holds it. It is released when its process ends, however it ends, and is not
    handed on to forked processes.

    Args:
        folder: what is owned. The lock lies in it (`.lock`), or beside it (`.NAME.lock`) with `beside`.
        work: what the owner does, for the message of whoever comes second ("training").
        beside: for what is renamed or replaced while it is owned.
        error: class of the error where somebody else holds it.

    Raises:
        K3DNError: another process, which the message names, holds it.
        StorageError: no lock can be written there.
    """

    _held: dict[tuple[int, str], str] = {}
    _holding = threading.Lock()

    def __init__(self, folder: str | os.PathLike[str], work: str, *, beside: bool = False,
                 error: type[K3DNError] = StorageError) -> None:
        folder = Path(os.path.abspath(folder))
        self.folder, self.work, self.error = folder, work, error
        self.path = folder.with_name(f".{folder.name[:200]}.lock") if beside else folder / ".lock"
        self._key = (os.getpid(), os.path.realpath(self.path))
        self._handle: int | None = None
        with self._holding:
            if self._key in self._held:
                raise self._refusal(f"this very process ({self._held[self._key]})")
            self._acquire()
            self._held[self._key] = work

    def _acquire(self) -> None:
        if fcntl is None:
            return
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            except OSError as error:
                raise storage_error(self.path, error) from error
            try:
                # Record locks, unlike those of flock(2), do not pass to forked workers that outlive this process.
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_current(handle, self.path):
                    owner = {"process": os.getpid(), "host": socket.gethostname(), "work": self.work,
                             "since": time.strftime("%Y-%m-%d %H:%M:%S")}
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, json.dumps(owner).encode(), 0)
                    self._handle = handle
                    return
                os.close(handle)  # its owner removed the file in between
            except (BlockingIOError, PermissionError):
                owner = self._owner(handle)
                os.close(handle)
                raise self._refusal(owner) from None
            except OSError as error:
                if error.errno in NO_LOCKS:
                    self._handle = handle  # a file system without locks
                    return
                os.close(handle)
                raise storage_error(self.path, error) from error

    def _owner(self, handle: int) -> str:
        try:
            owner = json.loads(os.pread(handle, 4096, 0))
            return (f"process {int(owner['process'])} on {str(owner['host'])[:100]} ({str(owner['work'])[:100]} since "
                    f"{str(owner['since'])[:40]})")
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def _refusal(self, owner: str) -> K3DNError:
        return self.error(f"{self.folder} is in use by another process: {owner}. Wait for it, or end it and run the "
                            "same command again; or choose another folder")

    def release(self) -> None:
        """Give the folder free; a second call does nothing."""
        with self._holding:
            if self._held.pop(self._key, None) is None or self._key[0] != os.getpid():
                return
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    if is_current(self._handle, self.path):
                        os.unlink(self.path)
                os.close(self._handle)
                self._handle = None

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
