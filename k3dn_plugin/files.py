"""Files that are either whole or not there: written aside, flushed to disk, then renamed."""
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from k3dn_plugin.errors import StorageError


@contextlib.contextmanager
def atomic_write(path, mode="wb", **open_arguments):
    """Open a temporary file beside `path`; it takes `path`'s place when the block ends without error.

    A reader sees the old file or the new one, never half of one, whenever the process is killed.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        with open(temporary, mode, **open_arguments) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a result should have the permissions of any other new file.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def storage_error(path, error):
    """A `StorageError` for a failed write to `path`: the reason, the space left, what to do."""
    folder = Path(path).parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**20
    return StorageError(f"could not write {path}: {error.strerror or error} ({free:,.0f} MiB free there). "
                        "Make room or choose another folder; what was written before is untouched")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder):
    """Put a folder's entries on disk: only then does a rename in it survive a power cut."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
