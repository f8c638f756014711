"""The errors that users meet.

Each message has three parts: what was expected, what was found (naming the file, key or option),
and what to do next. Tools print the message alone and exit with `exit_code`; code that embeds the
package catches `K3DNError` to catch them all.
"""
import os
import sys
from collections.abc import Callable, Sequence

from k3dn_plugin.console import lasting_output


class K3DNError(Exception):
    """Base of every error that a user can fix. `exit_code` is what a command-line tool returns."""

    exit_code = 2


class OptionError(K3DNError):
    """An option file, a `--set` override or a component's arguments are wrong."""


class RegistryError(K3DNError):
    """A name is not registered, or registered twice."""


class ComponentError(K3DNError, TypeError):
    """A component's class lacks what its kind must have."""


class DataError(K3DNError):
    """A view, frame, store or folder is missing, damaged or not what it promised to be."""


class CheckpointError(K3DNError):
    """A weights file or training state is damaged, or belongs to another network."""


class SizeError(K3DNError):
    """A tensor or image has a size that the operation cannot take."""


class StorageError(K3DNError):
    """Writing failed (full disk, no permission); what was written before is untouched."""


class TrainingError(K3DNError):
    """Training cannot go on: a loss is not finite, or memory ran out."""


class DependencyError(K3DNError):
    """Something that has to be installed is missing or broken; the message says how to fix it."""


def run_tool(function: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run `function(argv)` and return the process's exit status.

    A `K3DNError` is printed as one `error:` message (the traceback too, when `K3DN_TRACEBACK=1`), and so is an
    `OSError` that names a file: it is about a path that the user gave, too long or in a folder that may not be entered.
    Ctrl-C ends with status 130. A closed pipe (`| head`), a closed or full stdout and a console with few characters
    stop nothing: the work goes on, its output is lost.
    """
    with lasting_output():
        return _run_tool(function, argv)


def _run_tool(function: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None) -> int:
    try:
        return function(argv) or 0
    except K3DNError as error:
        if os.environ.get("K3DN_TRACEBACK") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.filename is None or os.environ.get("K3DN_TRACEBACK") == "1":
            raise
        print(f"error: {error.filename}: cannot be used ({error.strerror or error}). Check this path, or give another",
              file=sys.stderr)
        return StorageError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
