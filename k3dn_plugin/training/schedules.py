"""Learning-rate schedules with BasicSR's names and arguments, on torch's `LambdaLR`.

Each is a formula of the iteration alone, so that a resumed run continues on the same curve:

| type                     | arguments                                          |
|--------------------------|----------------------------------------------------|
| `Constant`               |                                                    |
| `CosineAnnealing`        | `T_max` (the stage's length), `eta_min`            |
| `MultiStep`              | `milestones`, `gamma`, `restarts`, `restart_weights` |
| `CosineAnnealingRestart` | `periods`, `restart_weights`, `eta_min` or `eta_mins` |

BasicSR's class names (`MultiStepLR`, `CosineAnnealingRestartCyclicLR`, ...) mean the same. `warmup_iter`
raises the rate in a straight line before that iteration.
"""
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import SCHEDULES, conform, near
from k3dn_plugin.training.optim import check_optimizer

Curve = Callable[[float, int], float]  # (the full rate, iterations done) -> the rate


@SCHEDULES.register_module("Constant")
def constant() -> Curve:
    """Keep the rate."""
    return lambda lr, t: lr


@SCHEDULES.register_module(["CosineAnnealing", "CosineAnnealingLR", "TrueCosineAnnealingLR"])
def cosine(*, T_max: int, eta_min: float = 0.0) -> Curve:
    """eta_min + (lr - eta_min) (1 + cos(pi t / T_max)) / 2, and eta_min after T_max."""
    if T_max < 1:
        raise OptionError(f"T_max: expected at least one iteration, found {T_max}")
    return lambda lr, t: _cosine(lr, eta_min, min(t / T_max, 1))


@SCHEDULES.register_module(["MultiStep", "MultiStepLR", "MultiStepRestartLR"])
def multi_step(*, milestones: list[int], gamma: float = 0.1, restarts: list[int] | None = None,
               restart_weights: list[float] | None = None) -> Curve:
    """Multiply by `gamma` at each milestone; at `restarts[i]` start again from lr * restart_weights[i]."""
    begins = [0] if restarts is None else restarts
    weights = [1.0] if restart_weights is None else restart_weights
    _same_length("restarts", begins, "restart_weights", weights)
    starts = sorted(zip(begins, weights))

    def rate(lr: float, t: int) -> float:
        start, weight = max((s for s in starts if s[0] <= t), default=(-1, 1.0))
        return lr * weight * gamma ** sum(start < m <= t for m in milestones)
    return rate


@SCHEDULES.register_module(["CosineAnnealingRestart", "CosineAnnealingRestartLR", "CosineAnnealingRestartCyclicLR"])
def cosine_restart(*, periods: list[int], restart_weights: list[float] | None = None,
                   eta_min: float = 0.0, eta_mins: list[float] | None = None) -> Curve:
    """Cosines one after the other: period i falls from lr * restart_weights[i] to eta_mins[i]."""
    if not periods or min(periods) < 1:
        raise OptionError(f"periods: expected one or more, each of at least one iteration; found {periods}")
    weights = restart_weights or [1.0] * len(periods)
    floors = eta_mins or [eta_min] * len(periods)
    _same_length("periods", periods, "restart_weights", weights)
    _same_length("periods", periods, "eta_mins", floors)
    ends = list(accumulate(periods))

    def rate(lr: float, t: int) -> float:
        i = next((i for i, end in enumerate(ends) if t <= end), len(ends) - 1)
        done = min((t - ends[i]) / periods[i] + 1, 1)
        return floors[i] + weights[i] * (_cosine(lr, floors[i], done) - floors[i])
    return rate


def check_schedule(spec: Mapping[str, Any], total_iter: int, where: str = "train.scheduler") -> Curve:
    """The function (lr, iterations done) -> rate that `spec` describes.

    Raises:
        OptionError: no such schedule, or arguments that do not fit it.
    """
    name = spec.get("type")
    if name is None or name not in SCHEDULES:
        raise OptionError(f"{where}.type: no schedule is called {name!r}."
                          f"{near(name, SCHEDULES.names())} Known: {', '.join(SCHEDULES.names())}")
    factory = SCHEDULES.get(name)
    signature = inspect.signature(factory)
    arguments = {"T_max": total_iter} if "T_max" in signature.parameters else {}
    for key, value in spec.items():
        if key == "type":
            continue
        if key not in signature.parameters:
            raise OptionError(f"{where}.{key}: is not an argument of {name}."
                              f"{near(key, signature.parameters)} "
                              f"Arguments: {', '.join(signature.parameters) or 'none'}")
        arguments[key] = conform(value, signature.parameters[key].annotation, f"{where}.{key}")
    missing = [n for n, p in signature.parameters.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise OptionError(f"{where}: {name} needs {', '.join(missing)}")
    try:
        return factory(**arguments)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None


def build_schedule(spec: Mapping[str, Any], optimizer: torch.optim.Optimizer, *, total_iter: int, warmup_iter: int = 0,
                   where: str = "train.scheduler") -> LambdaLR:
    """A `LambdaLR` that is stepped once after every iteration."""
    lr = float(optimizer.param_groups[0]["lr"])
    if lr <= 0:
        raise OptionError(f"train.optim_g.lr: expected more than 0, found {lr}")
    rate = _warmed_up(check_schedule(spec, total_iter, where), warmup_iter)
    return LambdaLR(optimizer, lambda t: rate(lr, t) / lr)


def learning_rate(stage: Any) -> Callable[[int], float]:
    """The rate of a `Stage` as a function of the iterations done in it."""
    rate = _warmed_up(check_schedule(stage.scheduler, stage.total_iter), stage.warmup_iter)
    optimizer, given = check_optimizer(stage.optim_g)
    lr = given.get("lr", inspect.signature(optimizer).parameters["lr"].default)
    return lambda t: rate(float(lr), t)


def _warmed_up(rate: Callable[[float, int], float], warmup_iter: int) -> Curve:
    # As in BasicSR: iteration t + 1 of the warm-up has (t + 1) / warmup_iter of the full rate.
    return lambda lr, t: lr * (t + 1) / warmup_iter if t + 1 < warmup_iter else rate(lr, t)


def _cosine(high: float, low: float, done: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def _same_length(first: str, one: Sequence[Any], second: str, other: Sequence[Any]) -> None:
    if len(one) != len(other):
        raise OptionError(f"{first} has {len(one)} entries, {second} has {len(other)}; they go in pairs")
