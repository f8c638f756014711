"""Multiply-accumulates that torch's flop counter does not see.

It counts convolutions and matrix products. Filters whose taps differ from pixel to pixel, and local
similarities, are sums of element-wise products; the functions that compute them say how many here.
"""
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_tally: ContextVar[list | None] = ContextVar("k3dn_macs", default=None)


@contextmanager
def recorded_macs():
    """A list that collects what `record_macs` reports inside the block."""
    token = _tally.set([])
    try:
        yield _tally.get()
    finally:
        _tally.reset(token)


def record_macs(count: int):
    """Report multiply-accumulates done by element-wise products; does nothing unless someone counts."""
    if torch.compiler.is_compiling():
        return  # a context variable would break the graph, and nobody counts there
    tally = _tally.get()
    if tally is not None:
        tally.append(int(count))
