"""How a restorer is run: where, how precisely, in which pieces. What changes a result is said here and nowhere else."""
import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import OptionError

HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class InferenceSettings:
    """The settings of restoring; checked when they are made.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N" (`device.py`).
        dtype: None or "float32" for full precision, "bfloat16" or "float16" for autocast; also as `torch.dtype`.
        tile: side of square tiles in pixels, rounded up to the network's size rule; None lets memory decide.
        max_memory_gb: bound in GiB: of the process's resident memory on the CPU, of what torch allocates on a GPU.
            None: what is free, where the system says.
        self_ensemble: take the mean over the four dual-pixel-valid transforms.
        share: processes that share the machine's memory, where no bound is set.

    Raises:
        OptionError: a value that has no meaning.
    """

    device: str = "auto"
    dtype: str | torch.dtype | None = None   # a name or None, once checked
    tile: int | None = None
    max_memory_gb: float | None = None
    self_ensemble: bool = False
    share: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", str(self.device))
        object.__setattr__(self, "dtype", _dtype_name(self.dtype))
        if self.tile is not None and (not _is_integer(self.tile) or self.tile < 1):
            raise OptionError(f"tile: expected a side in pixels, found {self.tile!r}")
        if self.max_memory_gb is not None and not (
                isinstance(self.max_memory_gb, Real) and math.isfinite(self.max_memory_gb) and self.max_memory_gb > 0):
            raise OptionError(f"max_memory_gb: expected a positive number of GiB, found {self.max_memory_gb!r}")
        if type(self.self_ensemble) is not bool:
            raise OptionError(f"self_ensemble: expected true or false, found {self.self_ensemble!r}")
        if not _is_integer(self.share) or self.share < 1:
            raise OptionError(f"share: expected a number of processes, found {self.share!r}")

    @property
    def half(self) -> str | None:
        """The name of the half precision, or None for float32."""
        return None if self.dtype is None else str(self.dtype)

    def changed(self, **changes: Any) -> "InferenceSettings":
        """Return the settings with some fields changed, checked again."""
        return replace(self, **changes)

    def check(self, restorer: Restorer) -> None:
        """Raise `OptionError` where the card of `restorer` does not list the half precision that is asked for."""
        allowed = restorer.card.half_precision
        if self.half is not None and self.half not in allowed:
            raise OptionError(f"{type(restorer).__name__} does not keep its accuracy in {self.half} (its card lists: "
                              f"{', '.join(allowed) or 'none'}); run it in float32")

    def facts(self) -> dict[str, Any]:
        """Return what may change a result, as JSON, under the names that stored scores have always had.

        The bound belongs to it: it decides the tiles, and so the result of restorers that tiling changes.
        """
        return {"amp": self.half, "tile": self.tile, "max_memory_gb": self.max_memory_gb,
                "self_ensemble": self.self_ensemble}


def _dtype_name(dtype: str | torch.dtype | None) -> str | None:
    """Return the name of a half precision, or None for full precision."""
    name = str(dtype).removeprefix("torch.")
    if name in ("None", "float32"):
        return None
    if name not in HALF:
        raise OptionError(f"dtype: expected float32, {' or '.join(HALF)}; found {name}")
    return name


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
