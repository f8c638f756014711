"""One budget for all: how long each recipe may train so that the comparison is equal in what is stated."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from k3dn_plugin.data.sampler import Phase, samples_before
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.cost import count_macs
from k3dn_plugin.evaluation.measure import measured_in_turns
from k3dn_plugin.options import Options
from k3dn_plugin.registry import ARCHS, LOSSES, MODULES
from k3dn_plugin.training.graph import TrainingGraph
from k3dn_plugin.training.optim import Precision, build_optimizer
from k3dn_plugin.training.stages import Stage, crop_of, plan_stages, share_stage

KINDS = {"samples": "training samples seen", "iterations": "iterations", "macs": "multiply-accumulates of "
         "forward passes", "seconds": "seconds in training steps, as measured on a few"}
MEASURED_STEPS = 3


@dataclass(frozen=True)
class Budget:
    """`amount` of `kind` ("samples", "iterations", "macs", "seconds") for every contestant."""

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Return the budget that `samples=5600` states.

        Raises:
            OptionError: another kind, or no finite positive number.
        """
        kind, _, amount = text.partition("=")
        try:
            value = float(amount)
        except ValueError:
            value = 0
        if kind not in KINDS or not 0 < value < math.inf:
            raise OptionError(f"--budget {text}: expected one of {', '.join(f'{k}=N' for k in KINDS)}, N more than 0")
        return cls(kind, value)

    def words(self) -> str:
        """Return the budget as the report states it."""
        return f"{self.amount:,.0f} {KINDS[self.kind]}"


def iterations_of(options: Options, budget: Budget, *, device: str = "cpu",
                  seconds: Sequence[Sequence[float]] | None = None) -> int:
    """Return how many iterations of a recipe the budget allows.

    Stages and phases keep their proportions, and each counts with its own batch, crop and cost: what the shortened
    recipe spends comes as near to the budget as one iteration allows, without going over it.

    Args:
        options: of the recipe.
        device: where it will train, for a budget in seconds.
        seconds: of an iteration, by stage and phase, where they were measured before (`seconds_of_steps`).

    Raises:
        OptionError: not even one iteration for each stage.
    """
    stages = plan_stages(options)
    if budget.kind == "iterations":
        allowed = int(budget.amount)
    else:
        each = _cost_of_iterations(stages, budget.kind, device, seconds, options.training.amp)
        allowed = _largest(lambda count: spent(stages, count, each) <= budget.amount, stages[-1].end, len(stages))
    if allowed < len(stages):
        raise OptionError(f"{options.name}: a budget of {budget.words()} allows {allowed} iterations, fewer than its "
                          f"{len(stages)} stages; raise it")
    return allowed


def _cost_of_iterations(stages: Sequence[Stage], kind: str, device: str,
                        seconds: Sequence[Sequence[float]] | None, amp: str | None) -> list[list[float]]:
    """What an iteration spends, by stage and phase."""
    if kind == "samples":
        return [[phase.global_batch for phase in share_stage(stage, 1)] for stage in stages]
    if kind == "macs":
        return [[phase.global_batch * _macs(stage, phase) for phase in share_stage(stage, 1)] for stage in stages]
    return [list(row) for row in seconds] if seconds is not None else seconds_of_steps(stages, device, amp=amp)


def spent(stages: Sequence[Stage], iterations: int, each: Sequence[Sequence[float]]) -> float:
    """Return what the recipe, shortened (or lengthened) to that many iterations, spends.

    Args:
        each: what an iteration spends, by stage and phase.
    """
    total = 0.0
    for stage, length, row in zip(stages, _shares([stage.total_iter for stage in stages], iterations), each,
                                  strict=True):
        parts = _shares([phase.iterations for phase in share_stage(stage, 1)], length)
        total += sum(part * cost for part, cost in zip(parts, row, strict=True))
    return total


def _largest(allowed: Callable[[int], bool], start: int, least: int) -> int:
    """The largest number for which `allowed` holds, which it does up to some number; 0 where it doesn't at `least`."""
    if not allowed(least):
        return 0
    low, high = least, max(start, least + 1)
    while allowed(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def samples_seen(options: Options, iteration: int) -> int:
    """Return how many training samples a run of the recipe on one device has seen after an iteration."""
    total = 0
    for stage in plan_stages(options):
        inside = min(max(iteration - stage.start, 0), stage.total_iter)
        total += samples_before(share_stage(stage, 1), inside)
    return total


def shortened(options: Options, iterations: int) -> dict:
    """Return the recipe as a mapping with that many iterations, each stage and phase in proportion.

    Schedules that are stated in iterations (milestones, periods, warm-up) shrink with it.
    """
    recipe = options.as_dict()
    train = recipe["train"]
    total = train["total_iter"]
    stages = train.get("stages")
    if stages:
        lengths = _shares([stage["total_iter"] for stage in stages], iterations)
        for stage, length in zip(stages, lengths, strict=True):
            _shorten(stage, length / stage["total_iter"], length)
            stage["total_iter"] = length
    # What stages inherit shrinks by the same share.
    _shorten(train, iterations / total, iterations)
    train["total_iter"] = iterations
    recipe["val"]["val_freq"] = max(min(recipe["val"]["val_freq"], iterations // 4), 1)
    logger = recipe["logger"]
    logger["save_checkpoint_freq"] = max(min(logger["save_checkpoint_freq"], iterations // 8), 1)
    logger["print_freq"] = max(min(logger["print_freq"], iterations // 20), 1)
    return recipe


def _shorten(block: dict, share: float, length: int) -> None:
    if block.get("warmup_iter"):
        block["warmup_iter"] = max(round(block["warmup_iter"] * share), 1)
    schedule = block.get("scheduler") or {}
    for key in ("milestones", "restarts"):
        if key in schedule:
            schedule[key] = [round(value * share) for value in schedule[key]]
    if "periods" in schedule:
        schedule["periods"] = _shares(schedule["periods"], max(round(sum(schedule["periods"]) * share), 1))
    if "T_max" in schedule:
        schedule["T_max"] = max(round(schedule["T_max"] * share), 1)
    if block.get("phases"):
        parts = _shares([phase["iterations"] for phase in block["phases"]], length)
        block["phases"] = [{**phase, "iterations": part}
                           for phase, part in zip(block["phases"], parts, strict=True) if part]


def _shares(lengths: Sequence[int], total: int) -> list[int]:
    """`total` divided in proportion to `lengths`, whole numbers, each at least 1 where there are enough."""
    ends = [0]
    for number in range(len(lengths)):
        exact = round(total * sum(lengths[:number + 1]) / sum(lengths))
        ends.append(min(max(exact, ends[-1] + 1), max(total - (len(lengths) - number - 1), ends[-1])))
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def counted_crop(stage: Stage, phase: Phase) -> tuple[int, int]:
    """Return (rows, columns) of the crop whose cost counts: 256 x 256 where a recipe trains on whole frames."""
    return crop_of(stage, phase) or (256, 256)


def _macs(stage: Stage, phase: Phase) -> int:
    with torch.device("meta"):
        return count_macs(ARCHS.build(stage.network_g), counted_crop(stage, phase))


def seconds_of_steps(stages: Sequence[Stage], device: str, steps: int = MEASURED_STEPS,
                     amp: str | None = None) -> list[list[float]]:
    """Return the seconds of an iteration by stage and phase, measured where it will train, optimizer included.

    Args:
        stages: of the recipe.
        device: "cpu" or a GPU.
        steps: measured after one that does not count; their median.
        amp: precision of the recipe.
    """
    return [[_seconds(stage, phase, torch.device(device), steps, amp) for phase in share_stage(stage, 1)]
            for stage in stages]


def _seconds(stage: Stage, phase: Phase, device: torch.device, steps: int, amp: str | None) -> float:
    graph = TrainingGraph(
        ARCHS.build(stage.network_g), trainable=stage.trainable,
        losses={name: LOSSES.build(spec) for name, spec in stage.losses.items()},
        reblur=MODULES.build(stage.reblur) if stage.reblur else None).to(device).train()
    optimizer, precision = build_optimizer(stage.optim_g, graph.trained_parameters()), Precision(amp, device)
    batch = _random_batch(phase.batch_size, counted_crop(stage, phase), device)

    def step() -> None:
        for _ in range(phase.accumulate):
            with precision.autocast():
                loss = sum(graph(batch).values(), torch.zeros((), device=device)) / phase.accumulate
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return measured_in_turns({"step": lambda: step}, device=device, rounds=steps)["step"].median_seconds


def _random_batch(count: int, crop: tuple[int, int], device: torch.device) -> dict:
    pair = torch.rand(count, 6, *crop, device=device)
    maps = {name: torch.rand(count, 1, *crop, device=device) for name in ("disparity", "defocus")}
    window = torch.tensor([[0, 0, *crop]], device=device).expand(count, 4)
    return {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": pair[:, :3], "window": window, **maps,
            "name": ["random"] * count}
