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
from itertools import accumulate

from torch.optim.lr_scheduler import LambdaLR

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import SCHEDULES, conform, near
from k3dn_plugin.training.optim import check_optimizer


@SCHEDULES.register_module("Constant")
def constant():
    """Keep the rate."""
    return lambda lr, t: lr


@SCHEDULES.register_module(["CosineAnnealing", "CosineAnnealingLR", "TrueCosineAnnealingLR"])
def cosine(*, T_max: int, eta_min: float = 0.0):
    """eta_min + (lr - eta_min) (1 + cos(pi t / T_max)) / 2, and eta_min after T_max."""
    if T_max < 1:
        raise OptionError(f"T_max: expected at least one iteration, found {T_max}")
    return lambda lr, t: _cosine(lr, eta_min, min(t / T_max, 1))


@SCHEDULES.register_module(["MultiStep", "MultiStepLR", "MultiStepRestartLR"])
def multi_step(*, milestones: list[int], gamma: float = 0.1, restarts: list[int] = (0,),
               restart_weights: list[float] = (1.0,)):
    """Multiply by `gamma` at each milestone; at `restarts[i]` start again from lr * restart_weights[i]."""
    _same_length("restarts", restarts, "restart_weights", restart_weights)
    starts = sorted(zip(restarts, restart_weights))

    def rate(lr, t):
        start, weight = max((s for s in starts if s[0] <= t), default=(-1, 1.0))
        return lr * weight * gamma ** sum(start < m <= t for m in milestones)
    return rate


@SCHEDULES.register_module(["CosineAnnealingRestart", "CosineAnnealingRestartLR", "CosineAnnealingRestartCyclicLR"])
def cosine_restart(*, periods: list[int], restart_weights: list[float] | None = None,
                   eta_min: float = 0.0, eta_mins: list[float] | None = None):
    """Cosines one after the other: period i falls from lr * restart_weights[i] to eta_mins[i]."""
    if not periods or min(periods) < 1:
        raise OptionError(f"periods: expected one or more, each of at least one iteration; found {periods}")
    weights = restart_weights or [1.0] * len(periods)
    floors = eta_mins or [eta_min] * len(periods)
    _same_length("periods", periods, "restart_weights", weights)
    _same_length("periods", periods, "eta_mins", floors)
    ends = list(accumulate(periods))

    def rate(lr, t):
        i = next((i for i, end in enumerate(ends) if t <= end), len(ends) - 1)
        done = min((t - ends[i]) / periods[i] + 1, 1)
        return floors[i] + weights[i] * (_cosine(lr, floors[i], done) - floors[i])
    return rate


def check_schedule(spec, total_iter, where="train.scheduler"):
    """The function (lr, iterations done) -> rate that `spec` describes.

    Raises:
        OptionError: no such schedule, or arguments that do not fit it.
    """
    name = spec.get("type")
    if name not in SCHEDULES:
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


def build_schedule(spec, optimizer, *, total_iter, warmup_iter=0, where="train.scheduler"):
    """A `LambdaLR` that is stepped once after every iteration."""
    lr = float(optimizer.param_groups[0]["lr"])
    if lr <= 0:
        raise OptionError(f"train.optim_g.lr: expected more than 0, found {lr}")
    rate = _warmed_up(check_schedule(spec, total_iter, where), warmup_iter)
    return LambdaLR(optimizer, lambda t: rate(lr, t) / lr)


def learning_rate(stage):
    """The rate of a `Stage` as a function of the iterations done in it."""
    rate = _warmed_up(check_schedule(stage.scheduler, stage.total_iter), stage.warmup_iter)
    optimizer, given = check_optimizer(stage.optim_g)
    lr = given.get("lr", inspect.signature(optimizer).parameters["lr"].default)
    return lambda t: rate(float(lr), t)


def _warmed_up(rate, warmup_iter):
    # As in BasicSR: iteration t + 1 of the warm-up has (t + 1) / warmup_iter of the full rate.
    return lambda lr, t: lr * (t + 1) / warmup_iter if t + 1 < warmup_iter else rate(lr, t)


def _cosine(high, low, done):
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def _same_length(first, one, second, other):
    if len(one) != len(other):
        raise OptionError(f"{first} has {len(one)} entries, {second} has {len(other)}; they go in pairs")
