"""Tensors that a network needs again and again, and that no weight decides: made once for each device."""
import functools
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., torch.Tensor])


def made_once(most: int) -> Callable[[Function], Function]:
    """Let a function keep its last results, `most` at most.

    They are ordinary tensors, also where the first call came in inference mode: what is made in that mode cannot be
    part of a training step, which may well be the next to ask for it.

    Args:
        most: results that are kept; all arguments must be hashable.
    """
    def decorate(function: Function) -> Function:
        @functools.lru_cache(maxsize=most)
        @functools.wraps(function)
        def made(*arguments):  # noqa: ANN002, ANN202 (as of `function`)
            if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
                return function(*arguments)  # the compiler follows no change of the mode, and keeps its own constants
            with torch.inference_mode(False):
                return function(*arguments)
        return made  # type: ignore[return-value]  # of the same arguments and result
    return decorate
