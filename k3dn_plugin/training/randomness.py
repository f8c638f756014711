"""Every random generator that training uses: seeding, capturing and restoring them.

The data does not depend on them (a sample's draws follow from seed, epoch and index); initial weights and
dropout do.
"""
import contextlib
import random
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(device: torch.device) -> dict[str, Any]:
    """Return the generators' states as tensors and plain values, so that a safe loader can read them back."""
    kind, keys, position, has_gauss, cached = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state())
    state = {"python": random.getstate(), "torch": torch.get_rng_state(),
             "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached)}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to what `capture` gave.

    Raises:
        CheckpointError: it is not what `capture` gives.
    """
    try:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"the training state is damaged: its random generators cannot be restored ({error}). "
                              "Resume from an older state") from error


@contextlib.contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """What happens inside draws no random numbers from what comes after (validation, for one)."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)
