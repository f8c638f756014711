"""The console command `k3dn`: finds its subcommands, runs one, and turns an error into one line.

A file of this folder has a docstring (its first line is the help), `GROUP`, `add_arguments(parser)` and
`run(arguments) -> exit status`. Such a file imports only argparse and the like at its top, so that `k3dn --help`
answers at once; what it needs of the package it imports when it runs.
"""
import argparse
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from k3dn_plugin import __version__
from k3dn_plugin.commands._process import prepare_process
from k3dn_plugin.console import end_process
from k3dn_plugin.errors import OptionError, run_tool
from k3dn_plugin.files import atomic_write, user_path

PACKAGE = "k3dn_plugin.commands"
GROUPS = {"photographs": "restore photographs", "restorers": "train and compare restorers", "data": "make data",
          "weights": "weights and checkpoints", "machine": "this installation"}


def commands() -> dict[str, ModuleType]:
    """Return the modules of all subcommands by name (`inspect_kernels.py` is `inspect-kernels`)."""
    names = [info.name for info in pkgutil.iter_modules(import_module(PACKAGE).__path__)]
    names = sorted(name for name in names if not name.startswith("_"))
    return {name.replace("_", "-"): import_module(f"{PACKAGE}.{name}") for name in names}


def build_parser(program: str = "k3dn", *, with_arguments: bool = True) -> argparse.ArgumentParser:
    """Build the parser of `k3dn` with all its subcommands, as shell completion reads it.

    Args:
        with_arguments: declare the subcommands' own arguments too, for which some read parts of the package.
    """
    parser = argparse.ArgumentParser(
        prog=program, description="Dual-pixel defocus deblurring: K3DN and its rivals.",
        usage=f"{program} COMMAND [arguments]   ({program} COMMAND --help explains one)",
        epilog=_overview(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"k3dn_plugin {__version__}")
    children = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    for name, module in commands().items():
        child = children.add_parser(name, description=module.__doc__, prog=f"{program} {name}",
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
        if with_arguments:
            module.add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None, *, program: str | None = None, command: str | None = None) -> int:
    """Run `k3dn` with `argv` (default: the process's) and return the exit status.

    Args:
        program: how the user called it, where that was not `k3dn` (`tools/train.py`).
        command: the subcommand, where `argv` does not begin with it.
    """
    prepare_process()
    given = [*([] if command is None else [command]), *(sys.argv[1:] if argv is None else argv)]
    status = run_tool(lambda _: _run(given, program), given)
    return _ended(status) if argv is None else status


def tool(name: str) -> Callable[[Sequence[str] | None], int]:
    """Return the `main(argv)` of one subcommand, with its own arguments alone: what the files of tools/ call."""
    def run_subcommand(argv: Sequence[str] | None = None) -> int:
        return main(argv, program=sys.argv[0], command=name)
    return run_subcommand


def _ended(status: int) -> int:
    """Return the exit status of this process's own command; end it at once where it was one of several."""
    distributed = sys.modules.get("k3dn_plugin.training.distributed")
    if distributed is not None and distributed.has_ended():
        end_process(status)
    return status


def print_page(page: str, out: Path | None) -> None:
    """Print a page, or write it to the file `out`."""
    if out is None:
        print(page)
        return
    with atomic_write(out) as handle:
        handle.write(page.encode("utf-8"))


def _run(argv: Sequence[str], program: str | None) -> int:
    known = commands()
    if argv and argv[0] in known:
        # One subcommand's parser alone: that of `prepare` reads all layouts for its help.
        module = known[argv[0]]
        parser = argparse.ArgumentParser(prog=program or f"k3dn {argv[0]}", description=module.__doc__,
                                         formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(parser)
        _check_given(argv[1:])
        arguments = parser.parse_args(argv[1:])
        for key, value in vars(arguments).items():
            setattr(arguments, key, _expanded(value))
        return module.run(arguments)
    # Only completion looks at the subcommands' own arguments here; the variable is how the shell asks for it.
    parser = build_parser(with_arguments="_ARGCOMPLETE" in os.environ)
    try:
        import argcomplete  # optional: shell completion
        argcomplete.autocomplete(parser)
    except ImportError:
        pass
    if not argv:
        parser.print_help()
        return 0
    parser.parse_args(argv)
    return 0


def _check_given(argv: Sequence[str]) -> None:
    """Refuse an empty argument: as a path it would be the current folder, and mostly a shell variable is not set.

    Raises:
        OptionError: there is one.
    """
    for number, text in enumerate(argv):
        if not text or (text.startswith("--") and text.endswith("=")):
            before = text or (argv[number - 1] if number else "the command")
            raise OptionError(f"the argument after {before} is empty; expected a value. Is a variable of the shell not "
                              "set? Leave the argument out to get its default")


def _expanded(value: Any) -> Any:
    """Return an argument with a leading `~` or `$NAME` expanded, as the shell does not within quotes or after `=`."""
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    if isinstance(value, (str, Path)) and str(value).startswith(("~", "$")):
        return type(value)(user_path(value))
    return value


def _overview() -> str:
    """All subcommands in their groups, a line each."""
    lines = []
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        for name, module in commands().items():
            if module.GROUP == group:
                lines.append(f"  {name:16} {(module.__doc__ or '').strip().partition(chr(10))[0]}")
        lines.append("")
    return "\n".join(lines)
