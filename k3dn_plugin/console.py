"""A command's surroundings: output that never stops the work (a terminal that closes, a full disk behind `>`, a console
with ASCII alone), environment variables, and how its process ends.
"""
import atexit
import contextlib
import io
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

STANDARD = (0, 1, 2)  # file descriptors of input, output and errors
WATCH_SECONDS = 0.5   # between two looks at the parent


class LastingStream(io.TextIOBase):
    r"""Writes to a text stream for as long as that works, and then to nowhere.

    Characters that the stream's encoding does not have are written as escapes (`\\\xe8`).

    Args:
        stream: the stream, or None where the process was started without one (`>&-`).
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.stream: Any = stream
        self.broken = stream is None

    @property
    def encoding(self) -> str:
        """The stream's."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        """How characters that the encoding does not have are written."""
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        """The stream of bytes below, where there is one."""
        return getattr(self.stream, "buffer", None)

    def write(self, text: str) -> int:
        """Write `text`, or drop it where the stream is gone; return its length."""
        if not self.broken:
            try:
                try:
                    self.stream.write(text)
                except UnicodeEncodeError:
                    self.stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush the stream where it is still there."""
        if not self.broken:
            try:
                self.stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal that is still there."""
        with contextlib.suppress(OSError, ValueError):
            return not self.broken and self.stream.isatty()
        return False

    def fileno(self) -> int:
        """Return the stream's file descriptor.

        Raises:
            OSError: it has none.
        """
        if self.stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self.stream.fileno()

    def writable(self) -> bool:
        """Return True: writing never fails."""
        return True

    def _give_up(self) -> None:
        self.broken = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if self.stream.fileno() in STANDARD:
                # What is still in its buffer would make Python's last flush fail, and the exit status 120.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Context in which `sys.stdout` and `sys.stderr` are `LastingStream`s.

    Standard streams that the process was started without are opened to nowhere: the next file would get their
    number, and what a library prints to "standard error" would go into it.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream if isinstance(stream, LastingStream) else LastingStream(stream)
                              for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError):
                stream.flush()
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Context in which an environment variable has a value, for this process and those that it starts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def command_line(name: str) -> str:
    """Return how to call a command from the folder that this process is in: `k3dn train`, where a shell finds it.

    Else the script beside this Python (`.venv/bin/k3dn train`), or, where the package isn't installed, the package.
    """
    python = Path(sys.executable or "python")
    script = shutil.which("k3dn", path=str(python.parent))
    if script is None:
        return f"{_near(python)} -m k3dn_plugin {name}"
    return f"k3dn {name}" if shutil.which("k3dn") == script else f"{_near(Path(script))} {name}"


def _near(program: Path) -> str:
    """A program's path as one types it here."""
    return shlex.quote(str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program))


def stop_with(parent: int) -> None:
    """Ask this process to stop, as Ctrl-C would, once the process that started it is no more; returns at once.

    Args:
        parent: that process.
    """
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=watch, daemon=True).start()


def end_process(status: int) -> NoReturn:
    """End this process with an exit status, and without the last of Python's own steps.

    Threads of libraries (gloo's, of a process group) may still wait for the interpreter's lock; where they get it after
    the interpreter has begun to go, C++ aborts the process, and work that is done and saved looks failed. What comes
    before that step is done here, too, in Python's order: threads that are no daemons end, functions of `atexit` are
    called (those of `logging` and `multiprocessing` among them), and the streams are flushed.
    """
    try:
        # Python has no public names for these; multiprocessing calls the first one, too, when it ends a process.
        for last_step in (cast(Any, threading)._shutdown, atexit._run_exitfuncs):
            try:
                last_step()
            except BaseException:  # is shown and changes nothing, as in Python itself
                with contextlib.suppress(Exception):
                    traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(status)
