"""Stores whose scenes are made by many jobs: `--cluster` of `k3dn simulate` and `k3dn prepare`.

A job makes a part of a store, a shard, with the same command's arguments (`python -m k3dn_plugin.commands._shards
SPEC`). The command that asks for them is the only writer of the whole store: it takes the scenes out of the shards in
the order of one machine, so that the store has the same content, and removes the shards. A shard's folder is named by
what decides its content; an interrupted command goes on with those that are there.
"""
import argparse
import math
import shutil
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from k3dn_plugin.comparison.jobs import Backend, Job, Needs, Shared, read_json, write_result
from k3dn_plugin.comparison.schedule import run_jobs
from k3dn_plugin.comparison.worker import run
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.evaluation.provenance import text_hash, versions
from k3dn_plugin.evaluation.results import plain
from k3dn_plugin.files import files_below, user_path

MOST_JOBS = 64
SCENES = (8, 200)   # of a job, at least and at most
ELSEWHERE = ("cluster", "out", "command")   # arguments that decide no frame


class Shards:
    """The parts of one store.

    Args:
        command: "simulate" or "prepare", whose file has `make_shard(arguments, path, numbers, split)`.
        arguments: of the command.
        store: the whole store's path; shards lie beside it.
        backend: what runs the jobs.
        sources: folders that jobs read.
        split: of a data set.
    """

    def __init__(self, command: str, arguments: argparse.Namespace, store: Path, backend: Backend, *,
                 sources: Sequence[str], split: str = ""):
        self.folder = shards_folder(store)
        self._command, self._split, self._backend, self._sources = command, split, backend, sources
        self._arguments = plain({name: value for name, value in vars(arguments).items() if name not in ELSEWHERE})
        self._content = text_hash([_files_in(user_path(source)) for source in sources])
        self._gpus = int(str(self._arguments.get("device", "cpu")).startswith("cuda"))

    def made(self, left: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, "Scene"]]:
        """Make the scenes that are left of all `names`, and yield them in order."""
        wanted, jobs = set(left), []
        size = min(max(math.ceil(len(names) / MOST_JOBS), SCENES[0]), SCENES[1])
        for start in range(0, len(names), size):
            part = names[start:start + size]
            if wanted.intersection(part):
                jobs.append(self._job(start, part))
        if jobs:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._backend.check(Shared(self.folder, sources=self._sources, needs=jobs[0].needs))
        run_jobs(jobs, self._backend)
        for job in jobs:
            faults, path = job.result()["faults"], job.folder / "shard.lmdb"
            store = LmdbStore(path) if path.exists() else None
            for name in job.identity["names"]:
                if name in wanted:
                    yield name, Scene(store, name, faults.get(name))

    def _job(self, start: int, part: Sequence[str]) -> Job:
        identity = {"command": self._command, "arguments": self._arguments, "split": self._split, "start": start,
                    "names": list(part), "sources": self._content, "package": versions()["k3dn_plugin"]}
        folder = self.folder / f"{start:07d}_{text_hash(plain(identity))}"
        if (read_json(folder / "shard.json") or {}).get("faults"):
            shutil.rmtree(folder)  # what was wrong with these scenes may have been corrected
        folder.mkdir(parents=True, exist_ok=True)
        spec = {"command": self._command, "arguments": self._arguments, "split": self._split,
                "numbers": list(range(start, start + len(part)))}
        return Job("shard", f"scenes {start + 1} to {start + len(part)}", identity, spec, folder, folder / "shard.json",
                   Needs(gpus=self._gpus), module="k3dn_plugin.commands._shards")


def shards_folder(store: Path) -> Path:
    """Return where the shards of a store lie."""
    return store.with_name(f"{store.name}.shards")


def remove_shards(store: Path) -> None:
    """Remove the shards of a store that is whole, those that an interrupted command has left among them."""
    shutil.rmtree(shards_folder(store), ignore_errors=True)


def _files_in(folder: Path) -> list:
    """Name, size and time of each file: shards of an earlier call are of other files where one has changed."""
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns]
            for path in files_below(folder)]


class Scene:
    """A scene in a shard, or what is wrong with it."""

    def __init__(self, store: LmdbStore | None, name: str, fault: str | None):
        self.fault = fault
        self._store, self._name = store, name

    @property
    def record(self) -> Any:
        """The scene's record in the shard's manifest."""
        assert self._store is not None  # a scene without a fault is stored
        return self._store.manifest.scenes[self._name]

    def frames(self) -> dict[str, Any]:
        """Return the frames by view, in the order in which they were stored."""
        assert self._store is not None  # as above
        return {view: self._store.read(self._name, view) for view in self.record.views}


def make_shard(spec: dict) -> None:
    """Make one shard, as its command says how."""
    module, folder = import_module(f"k3dn_plugin.commands.{spec['command']}"), Path(spec["done"]).parent
    path = folder / "shard.lmdb"
    faults = module.make_shard(argparse.Namespace(**spec["arguments"]), path, spec["numbers"], spec["split"])
    write_result(spec, folder, {"faults": faults}, [path / "data.mdb"] if path.exists() else [])


if __name__ == "__main__":
    raise SystemExit(run({"shard": make_shard}))
