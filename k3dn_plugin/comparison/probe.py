"""What a machine sees of a comparison: its folder, the data, the weights, and which code it would run.

`look` is asked on the machine that starts the comparison and on every other one (`python -m
k3dn_plugin.comparison.probe`, question and answer as JSON); `differences` says what a machine lacks.
"""
import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from k3dn_plugin.comparison.jobs import Shared
from k3dn_plugin.errors import K3DNError
from k3dn_plugin.evaluation.provenance import data_hash, text_hash, versions
from k3dn_plugin.evaluation.results import plain
from k3dn_plugin.files import PACKAGE, atomic_write, file_hash, files_below, user_path
from k3dn_plugin.registry import DATASETS

ANSWER = "k3dn-probe:"   # begins the line with the answer: imported modules may print, too


def question(shared: Shared) -> dict:
    """Return what a machine is asked, as JSON data; a file that it must find is put into the comparison's folder."""
    token = secrets.token_hex(8)
    path = Path(os.path.abspath(shared.out)) / ".probe"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(token)
    return plain({"probe": str(path), "token": token, "datasets": [dict(one) for one in shared.datasets],
                  "imports": list(shared.imports), "weights": list(shared.weights),
                  "sources": list(shared.sources)})


def look(asked: Mapping[str, Any]) -> dict:
    """Return what this machine sees of what it is asked about."""
    path = Path(asked["probe"])
    found: dict[str, Any] = {"host": socket.gethostname(), "versions": versions(), "package": package_hash()}
    try:
        found["folder"] = path.read_text(encoding="utf-8")
        own = path.with_name(f"{path.name}.{found['host']}.{os.getpid()}")
        own.write_text("", encoding="utf-8")
        own.unlink()
    except OSError as error:
        found["folder"] = f"{path.parent}: {error.strerror or error}"
    found["imports"] = {name: _tried(lambda name=name: str(bool(import_module(name)))) for name in asked["imports"]}
    found["datasets"] = [_tried(lambda block=block: data_hash(DATASETS.build(block))) for block in asked["datasets"]]
    found["weights"] = {name: _tried(lambda name=name: _content(user_path(name))) for name in asked["weights"]}
    found["sources"] = {name: _tried(lambda name=name: _listing(user_path(name))) for name in asked["sources"]}
    return found


def _listing(path: Path) -> str:
    return text_hash([[str(one.relative_to(path)), one.stat().st_size] for one in files_below(path)]
                     if path.is_dir() else [path.stat().st_size])


def _content(path: Path) -> str:
    if not path.is_dir():
        return file_hash(path)
    return text_hash([[str(one.relative_to(path)), file_hash(one)] for one in files_below(path)])


def _tried(look_at: Any) -> str:
    """What `look_at` returns, or what went wrong: on the machine that asks, that differs from a hash."""
    try:
        return look_at()
    except (K3DNError, OSError, ImportError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def package_hash() -> str:
    """Return a hash of this package's source."""
    files = sorted(PACKAGE.rglob("*.py"))
    return text_hash([[path.relative_to(PACKAGE).as_posix(), file_hash(path)] for path in files])


def differences(asked: Mapping[str, Any], here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return what a machine lacks, or has otherwise than the machine that asks; nothing where all is the same."""
    found = []
    if there["folder"] != asked["token"]:
        seen = "an older state of it, or another folder" if len(there["folder"]) == len(asked["token"]) else "none"
        found.append(f"expected the folder of the comparison at the same path, readable and writable; found {seen} "
                     f"({there['folder']})")
    for block, one, other in zip(asked["datasets"], here["datasets"], there["datasets"], strict=True):
        if one != other:
            found.append(f"expected the data {block.get('store') or block} as it is here; found {other}")
    for what in ("weights", "imports", "sources"):
        found += [f"expected {what} {name} as here; found {there[what].get(name)}"
                  for name, one in here[what].items() if there[what].get(name) != one]
    found += [f"expected {name} {one}; found {there['versions'].get(name, 'none')}"
              for name, one in here["versions"].items() if there["versions"].get(name) != one]
    if here["package"] != there["package"] and here["versions"]["k3dn_plugin"] == there["versions"]["k3dn_plugin"]:
        found.append("expected the same source of k3dn_plugin; found another one of the same version")
    return found


def main() -> None:
    """Answer the question that comes in on standard input."""
    answer = look(json.loads(sys.stdin.read()))
    print(ANSWER + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
