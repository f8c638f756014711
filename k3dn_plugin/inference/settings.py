"""How a restorer is run: where, how precisely, in which pieces. What changes a result is said here and nowhere else."""
import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference.device import bfloat16_is_fast, choose_device

HALF = ("bfloat16", "float16")
SHORT = {"None": "float32", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class InferenceSettings:
    """The settings of restoring; checked when they are made.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N" (`device.py`).
        precision: "float32" (or None), "bfloat16" or "float16" for autocast, short as "bf16" and "fp16", also as
            `torch.dtype`; or "auto": bfloat16 where the restorer's card says that it changes too little to matter and
            the device is faster in it, else float32.
        tile: side of square tiles in pixels, rounded up to the network's size rule; None lets memory decide.
        max_memory_gb: bound in GiB: of the process's resident memory on the CPU, of what torch allocates on a GPU.
            None: what is free, where the system says.
        self_ensemble: take the mean over the four dual-pixel-valid transforms.
        compile: run the network through `torch.compile`, which first takes about a minute for each size.
        share: processes that share the machine's memory, where no bound is set.

    Raises:
        OptionError: a value that has no meaning.
    """

    device: str = "auto"
    precision: str | torch.dtype | None = None   # a full name, once checked
    tile: int | None = None
    max_memory_gb: float | None = None
    self_ensemble: bool = False
    compile: bool = False
    share: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", str(self.device))
        object.__setattr__(self, "precision", _precision_name(self.precision))
        if self.tile is not None and (not _is_integer(self.tile) or self.tile < 1):
            raise OptionError(f"tile: expected a side in pixels, found {self.tile!r}")
        if self.max_memory_gb is not None and not (
                isinstance(self.max_memory_gb, Real) and math.isfinite(self.max_memory_gb) and self.max_memory_gb > 0):
            raise OptionError(f"max_memory_gb: expected a positive number of GiB, found {self.max_memory_gb!r}")
        for name in ("self_ensemble", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name}: expected true or false, found {getattr(self, name)!r}")
        if not _is_integer(self.share) or self.share < 1:
            raise OptionError(f"share: expected a number of processes, found {self.share!r}")

    @property
    def half(self) -> str | None:
        """The name of the half precision, or None for float32; of settings whose precision is decided."""
        if self.precision == "auto":
            raise OptionError("precision: auto is not decided yet; `decided(restorer)` decides it for a restorer")
        return None if self.precision == "float32" else str(self.precision)

    def changed(self, **changes: Any) -> "InferenceSettings":
        """Return the settings with some fields changed, checked again."""
        return replace(self, **changes)

    def decided(self, restorer: Restorer) -> "InferenceSettings":
        """Return the settings with "auto" replaced by the precision that it means for `restorer` on the device.

        Raises:
            OptionError: the card of `restorer` does not list the half precision that is asked for, or the device is
                missing.
        """
        if self.precision == "auto":
            fast = restorer.card.bfloat16_is_faithful and bfloat16_is_fast(choose_device(self.device))
            return self.changed(precision="bfloat16" if fast else "float32")
        allowed = restorer.card.half_precision
        if self.half is not None and self.half not in allowed:
            raise OptionError(f"{type(restorer).__name__} does not keep its accuracy in {self.half} (its card lists: "
                              f"{', '.join(allowed) or 'none'}); run it in float32")
        return self

    def facts(self) -> dict[str, Any]:
        """Return what may change a result, as JSON, under the names that stored scores have always had.

        The bound belongs to it: it decides the tiles, and so the result of restorers that tiling changes.
        """
        return {"amp": self.half, "tile": self.tile, "max_memory_gb": self.max_memory_gb,
                "self_ensemble": self.self_ensemble, **({"compile": True} if self.compile else {})}


def _precision_name(precision: str | torch.dtype | None) -> str:
    """Return the full name of a precision."""
    name = str(precision).removeprefix("torch.")
    name = SHORT.get(name, name)
    if name not in ("auto", "float32", *HALF):
        raise OptionError(f"precision: expected float32, {', '.join(HALF)} or auto; found {name}")
    return name


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
