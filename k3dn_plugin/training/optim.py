"""Optimizers by name, the moving average of the weights, and mixed precision.

An optimizer is any of torch.optim; its arguments are checked against its signature.
"""
import contextlib
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import conform, near


def check_optimizer(spec: Mapping[str, Any],
                    where: str = "train.optim_g") -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return `(class, arguments)` for `spec`, a mapping with `type` and the optimizer's own arguments.

    Raises:
        OptionError: no such optimizer; an argument that it does not have, lacks or has as another type.
    """
    known = {name: cls for name, cls in vars(torch.optim).items()
             if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
             and cls not in (torch.optim.Optimizer, torch.optim.LBFGS)}  # LBFGS wants a closure
    name = spec.get("type")
    if not isinstance(name, str) or name not in known:
        raise OptionError(f"{where}.type: no optimizer of torch.optim is called {name!r}."
                          f"{near(name, known)} Known: {', '.join(sorted(known))}")
    cls = known[name]
    parameters = {n: p for n, p in inspect.signature(cls.__init__).parameters.items()
                  if n not in ("self", "params")}
    hints = typing.get_type_hints(cls.__init__)
    arguments = {}
    for key, value in spec.items():
        if key == "type":
            continue
        if key not in parameters:
            raise OptionError(f"{where}.{key}: is not an argument of {name}.{near(key, parameters)} "
                              f"Arguments: {', '.join(parameters)}")
        arguments[key] = conform(value, _without_tensors(hints.get(key, object)), f"{where}.{key}")
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise OptionError(f"{where}: {name} needs {', '.join(missing)}")
    return cls, arguments


FUSED = (torch.optim.Adam, torch.optim.AdamW)
IMPLEMENTATIONS = {"fused", "foreach", "capturable", "differentiable"}


def build_optimizer(spec: Mapping[str, Any], parameters: Iterable[nn.Parameter],
                    where: str = "train.optim_g") -> torch.optim.Optimizer:
    """Return the optimizer that `spec` describes, over `parameters`.

    Raises:
        OptionError: as `check_optimizer`, or a value that the optimizer refuses (a negative lr).
    """
    cls, arguments = check_optimizer(spec, where)
    parameters = list(parameters)
    # One kernel in place of many; another implementation that the recipe asks for is left to it.
    if cls in FUSED and not IMPLEMENTATIONS & arguments.keys() and all(
            parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in parameters):
        arguments["fused"] = True
    try:
        return cls(parameters, **arguments)
    except ValueError as error:
        raise OptionError(f"{where}: {cls.__name__} refuses {arguments}: {error}") from None


def _without_tensors(annotation: Any) -> Any:
    """`float | Tensor` -> `float`, also inside tuples: a YAML file holds no tensors."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, (_without_tensors(a) for a in inner if a is not torch.Tensor))
    if origin is tuple:
        return tuple[tuple(a if a is ... else _without_tensors(a) for a in inner)]
    return annotation


def moving_average(restorer: nn.Module, decay: float) -> AveragedModel | None:
    """Torch's `AveragedModel` of `restorer`, its floating-point buffers included; None if `decay` is 0.

    ema <- d * ema + (1 - d) * weights after every iteration, with d = min(decay, (1 + n) / (10 + n)) after n of them;
    the first one copies. With `decay` from the start, a stage of 1,000 iterations and 0.999 would end with a third of
    the weights that its new parts were drawn with.
    """
    if decay == 0:
        return None

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: torch.Tensor | int) -> None:
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            done = int(model.n_averaged)   # as `count`, which lies on the device and would have to be waited for
            get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averaged, current, count)
        else:
            # torch would compute 0.999 * 7 + 0.001 * 7 and round it down to 6: an index table (or the
            # counter of a batch norm) has to be copied.
            for target, source in zip(averaged, current):
                target.copy_(source)

    model = AveragedModel(restorer, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
    return model


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """`autocast()` for the forward pass and `scaler` for the backward pass.

    Args:
        amp: null, "bfloat16" (GPU and CPU) or "float16" (GPU).
        device: where training runs.

    Raises:
        OptionError: float16 on the CPU, or bfloat16 on a GPU that does not have it.
    """

    def __init__(self, amp: str | None, device: torch.device):
        if amp == "float16" and device.type == "cpu":
            raise OptionError("train.amp: float16 needs a GPU (the CPU has no fast float16, and its small "
                              "range needs a scaler). Use amp: bfloat16, or amp: null")
        if amp == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise OptionError(f"train.amp: {torch.cuda.get_device_name(device)} has no bfloat16. "
                              "Use amp: float16, or amp: null")
        self.dtype = None if amp is None else DTYPES.get(amp)
        self.device = device
        # Disabled, the scaler passes everything through, so that the loop has one path.
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "float16")

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Context of the forward pass."""
        if self.dtype is None:
            yield
            return
        with torch.autocast(self.device.type, dtype=self.dtype):
            if self.device.type == "cpu":
                with _Float32Volumes():
                    yield
            else:
                yield


class _Float32Volumes(TorchFunctionMode):
    """Keep 3-D convolutions out of autocast on the CPU.

    oneDNN's weight gradient of a bfloat16 Conv3d reads memory that nobody wrote: two runs differ, and now and then
    one ends in NaN. In float32 it is exact, so a bfloat16 run resumes with the same bits.
    """

    _CONVOLUTIONS = (torch.conv3d, torch.conv_transpose3d, F.conv3d, F.conv_transpose3d)

    def __torch_function__(self, func: Callable, types: Sequence[type], args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._CONVOLUTIONS:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_float32, args), **{name: _float32(value) for name, value in kwargs.items()})


def _float32(value: Any) -> Any:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value
