"""One budget for all: how long each recipe may train so that the comparison is equal in what is stated."""
from dataclasses import dataclass

import torch

from k3dn_plugin.comparison.measure import training_seconds
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.cost import count_macs
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.training.stages import plan_stages, share_stage

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
        """From `samples=5600`.

        Raises:
            OptionError: another kind, or no positive number.
        """
        kind, _, amount = text.partition("=")
        try:
            value = float(amount)
        except ValueError:
            value = 0
        if kind not in KINDS or not value > 0:
            raise OptionError(f"--budget {text}: expected one of {', '.join(f'{k}=N' for k in KINDS)}, N more than 0")
        return cls(kind, value)

    def words(self) -> str:
        """For the report."""
        return f"{self.amount:,.0f} {KINDS[self.kind]}"


def iterations_of(options, budget: Budget) -> int:
    """How many iterations of a recipe the budget allows.

    Raises:
        OptionError: not even one for each stage.
    """
    stages = plan_stages(options)
    total = stages[-1].end
    batch = share_stage(stages[0], 1)[0].global_batch
    if budget.kind == "iterations":
        allowed = int(budget.amount)
    elif budget.kind == "samples":
        allowed = int(budget.amount // batch)
    elif budget.kind == "macs":
        # Stages and phases differ in cost; the mean over the recipe decides.
        spent = sum(phase.iterations * phase.global_batch * _macs(stage, phase)
                    for stage in stages for phase in share_stage(stage, 1))
        allowed = int(budget.amount / (spent / total))
    else:
        allowed = int(budget.amount / _seconds_per_iteration(options))
    if allowed < len(stages):
        raise OptionError(f"{options.name}: a budget of {budget.words()} allows {allowed} iterations, fewer than its "
                          f"{len(stages)} stages; raise it")
    return allowed


def shortened(options, iterations: int) -> dict:
    """The recipe as a mapping with that many iterations, each stage and phase in proportion.

    Schedules that are stated in iterations (milestones, periods, warm-up) shrink with it.
    """
    recipe = options.as_dict()
    train = recipe["train"]
    total = train["total_iter"]
    stages = train.get("stages")
    if stages:
        lengths = _shares([stage["total_iter"] for stage in stages], iterations)
        for stage, length in zip(stages, lengths):
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


def _shorten(block, share, length):
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
        block["phases"] = [{**phase, "iterations": part} for phase, part in zip(block["phases"], parts) if part]


def _shares(lengths, total):
    """`total` divided in proportion to `lengths`, whole numbers, each at least 1 where there are enough."""
    ends = [0]
    for number in range(len(lengths)):
        exact = round(total * sum(lengths[:number + 1]) / sum(lengths))
        ends.append(min(max(exact, ends[-1] + 1), max(total - (len(lengths) - number - 1), ends[-1])))
    return [end - start for start, end in zip(ends, ends[1:])]


def _macs(stage, phase):
    crop = phase.crop_size or stage.dataset.arguments().get("crop_size") or (256, 256)
    crop = (crop, crop) if isinstance(crop, int) else tuple(crop)
    with torch.device("meta"):
        return count_macs(ARCHS.build(stage.network_g), crop)


def _seconds_per_iteration(options):
    """Of the dearest stage, measured on random crops."""
    return max(training_seconds(stage, MEASURED_STEPS) for stage in plan_stages(options))
