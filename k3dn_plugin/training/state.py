"""Training states on disk: everything that an unbroken continuation needs, in one file.

A state is a dictionary of tensors and plain values, so that `torch.load(weights_only=True)` reads it and
nothing in it is executed:

| key | holds |
|---|---|
| `iteration`, `stage`, `stage_name` | iterations done in the whole run, the stage (from 0) they end in |
| `restorer`, `reblur`, `ema` | state dicts; `ema` without its wrapper's prefix, plus `ema_updates` |
| `optimizer`, `scheduler`, `scaler` | their state dicts |
| `rng` | the generators of every process, in the order of ranks |
| `world_size`, `batch` | processes, and samples per iteration over all of them |
| `best`, `history` | best validation of the stage, all logged rows |
| `options`, `options_hash`, `versions`, `seconds` | where it comes from |
| `data` | hashes of the stages' training data (states of older versions have none) |

The position in the data is the iteration: the sampler starts there.
"""
import contextlib
import io
import json
import os
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.files import atomic_write

FORMAT = "k3dn_plugin.state"
VERSION = 1


def save_state(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write `<iteration>.state`, then remove all but the newest `keep` states.

    Raises:
        StorageError: the disk is full; older states are untouched.
    """
    path = Path(folder) / f"{state['iteration']:08d}.state"
    # Through memory: torch reports a full disk as an unspecific RuntimeError, a file write as what it is.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **state}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
    for old in state_files(folder)[keep:]:
        if old != path:  # a damaged state may lie there that counts as newer
            old.unlink(missing_ok=True)
    return path


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state at `path`, its tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, or not a training state.
    """
    path = Path(path)
    if not path.is_file():
        there = [p.name for p in state_files(path.parent)]
        raise CheckpointError(f"no training state at {path}; {path.parent} holds "
                              f"{', '.join(there) or 'none'}. --resume auto takes the newest of a run")
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(9)[8:] == b"{":  # how safetensors begin
            raise CheckpointError(f"{path} holds weights, not a training state, so training cannot be resumed from it. "
                                  "To start a training from these weights: --set path.pretrain_network_g=" + str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # compares every record with its checksum
        if broken is not None:
            raise zipfile.BadZipFile(f"the record {broken} does not match its checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged ({path.stat().st_size:,} bytes): {reason}. Resume from an "
                              "older state of the run, or with --resume auto, which looks for one") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a training state of k3dn_plugin. States lie in "
                              "experiments/<name>/states/; weights go to path.pretrain_network_g")
    if state.get("version") != VERSION:
        raise CheckpointError(f"{path} is a state of version {state.get('version')}, this package reads "
                              f"version {VERSION}; resume with the package that wrote it")
    wrong = _unexpected(state)
    if wrong is not None:
        raise CheckpointError(f"{path} is damaged or was not written by this package: {wrong}. Resume from an older "
                              "state of the run, or with --resume auto, which looks for one")
    return state


_CONTENT = {
    "iteration": int, "stage": int, "stage_name": str, "restorer": dict, "reblur": (dict, type(None)),
    "ema": (dict, type(None)), "ema_updates": int, "optimizer": dict, "scheduler": dict, "scaler": dict,
    "rng": (list, tuple), "world_size": int, "batch": int, "best": (dict, type(None)), "history": str,
    "options": dict, "options_hash": str, "seconds": (int, float)}


def _unexpected(state: dict) -> str | None:
    """What is wrong with the content of a state, or None."""
    for key, kind in _CONTENT.items():
        if key not in state:
            return f"{key!r} is missing"
        if not isinstance(state[key], kind):
            return f"{key!r} is of type {type(state[key]).__name__}"
    for key, least in (("iteration", 1), ("stage", 0), ("world_size", 1), ("batch", 1), ("ema_updates", 0)):
        if state[key] < least:
            return f"{key!r} is {state[key]}"
    options = state["options"]
    if not {"network_g", "datasets", "train", "manual_seed"} <= options.keys() or not isinstance(
            options["train"], dict) or "total_iter" not in options["train"]:
        return "'options' are not those of a run"
    if len(state["rng"]) != state["world_size"] or not all(
            isinstance(own, dict) and {"python", "numpy", "torch"} <= own.keys() for own in state["rng"]):
        return "'rng' does not hold the generators of each process"
    best = state["best"]
    if best is not None and not (isinstance(best.get("iteration"), int) and isinstance(best.get("scores"), dict)):
        return "'best' is no score"
    try:
        rows = json.loads(state["history"])
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("iteration"), int) for row in rows):
        return "'history' holds no rows"
    return None


def newest_state(folder: Path, warn: Callable[..., None]) -> tuple[Path | None, dict[str, Any] | None]:
    """Return `(path, state)` of the newest state in `folder` that can be read, or `(None, None)`.

    `warn(message)` is called for each damaged one that is passed over.

    Raises:
        CheckpointError: there are states, but all are damaged.
    """
    files = state_files(folder)
    for path in files:
        try:
            return path, load_state(path)
        except CheckpointError as error:
            warn(f"passing over a bad state: {error}")
    if files:
        raise CheckpointError(f"all {len(files)} training states in {folder} are damaged. Start again with "
                              "--overwrite, which keeps the old folder under another name; or start another run from "
                              "its weights: --set name=... path.pretrain_network_g="
                              + shlex.quote(str(Path(folder).parent / "models" / "last.safetensors")))
    return None, None


def state_files(folder: Path) -> list[Path]:
    """Return the states in `folder`, newest first."""
    found = [p for p in Path(folder).glob("*.state") if p.stem.isdecimal()]
    return sorted(found, key=lambda p: int(p.stem), reverse=True)
