"""Finds the state dict among what training programs save around it; averaged weights first: those are published."""
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.content import OfficialFile

AVERAGED = ("params_ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema", "net_g_ema", "generator_ema",
            "ema_model", "averaged_model")
WRAPPERS = (*AVERAGED, "params", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_g",
            "network_g", "generator", "weights", "module", "shadow")
# Of moving averages, of DataParallel and torch.compile, then of the program that held the network.
PREFIXES = ("generator_ema.", "net_g_ema.", "model_ema.", "ema_model.", "ema.", "module.", "_orig_mod.", "generator.",
            "network_g.", "net_g.", "model.", "net.")
DEPTH = 4   # wrappers within wrappers, prefixes before prefixes


def unwrapped(path: Path, loaded: object) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the tensors of a loaded PyTorch file by key, and notes on where they lay.

    Raises:
        CheckpointError: it holds no tensors.
    """
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}; expected a state dict, alone or "
                              f"under one of {', '.join(WRAPPERS)}")
    held = cast("Mapping[str, Any]", loaded)
    found = _inside(held, DEPTH)
    if found is None:
        raise CheckpointError(f"{path} holds no tensors (its keys: {', '.join(map(str, list(held)[:5]))[:200]}); "
                              f"expected a state dict, alone or under one of {', '.join(WRAPPERS)}")
    return found


def _inside(loaded: Mapping[str, Any], depth: int) -> tuple[dict[str, torch.Tensor], tuple[str, ...]] | None:
    """Return the tensors under the first wrapper that holds any, else those that lie here, else None."""
    if depth:
        names = [name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)]
        for name in names:
            found = _inside(loaded[name], depth - 1)
            if found is not None:
                others = [other for other in names if other != name and _inside(loaded[other], depth - 1) is not None]
                note = f"under {name!r}" + (f", not {others[0]!r}" if others else "")
                return found[0], (note, *found[1])
    state = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    return (state, ()) if state else None


def readings(file: OfficialFile, depth: int = DEPTH) -> Iterator[OfficialFile]:
    """Yield a file as it is, and without the prefixes that programs put before a network's keys, averages first.

    What does not have a prefix belongs to the program around the network (a loss, a counter), and is left out. Some
    networks' own keys begin with one of the prefixes, so whoever recognizes the network tries them one after another.
    """
    yield file
    if depth:
        for without in _without_prefix(file):
            yield from readings(without, depth - 1)


def _without_prefix(file: OfficialFile) -> Iterator[OfficialFile]:
    for prefix in PREFIXES:
        found = {key.removeprefix(prefix): value for key, value in file.tensors.items() if key.startswith(prefix)}
        if found:
            left = len(file.tensors) - len(found)
            note = f"without the prefix {prefix!r}" + (f" and {left} tensors that lack it" if left else "")
            yield replace(file, tensors=found, notes=(*file.notes, note))
