"""Multiply-accumulates that torch's flop counter does not see.

It counts convolutions and matrix products. Filters whose taps differ from pixel to pixel, and local
similarities, are sums of element-wise products; the functions that compute them say how many here.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_tally: ContextVar[list[int] | None] = ContextVar("k3dn_macs", default=None)


@contextmanager
def recorded_macs() -> Iterator[list[int]]:
    """A list that collects what `record_macs` reports inside the block."""
    counts: list[int] = []
    token = _tally.set(counts)
    try:
        yield counts
    finally:
        _tally.reset(token)


def record_macs(count: int) -> None:
    """Report multiply-accumulates done by element-wise products; does nothing unless someone counts."""
    if torch.compiler.is_compiling():
        return  # a context variable would break the graph, and nobody counts there
    tally = _tally.get()
    if tally is not None:
        tally.append(int(count))
