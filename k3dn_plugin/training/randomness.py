"""Every random generator that training uses: seeding, capturing and restoring them.

The data does not depend on them (a sample's draws follow from seed, epoch and index); initial weights and
dropout do.
"""
import contextlib
import random

import numpy as np
import torch


def seed_everything(seed):
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(device):
    """The generators' states as tensors and plain values, so that a safe loader can read them back."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state = {"python": random.getstate(), "torch": torch.get_rng_state(),
             "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached)}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state, device):
    """Put the generators back to what `capture` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextlib.contextmanager
def preserved(device):
    """What happens inside draws no random numbers from what comes after (validation, for one)."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)
