"""Stages: what each part of a recipe trains, what it takes over from the part before, how batches are shared out.

A recipe without `train.stages` is one stage. A stage's keys stand in for those of `train`: `network_g`,
`datasets_train`, `optim_g` and `scheduler` are merged into them, `losses` and the plain values replace
them. The weights that a stage ends with (their moving average, where one is kept) start the next one.

A recipe may state its global batch (`train.global_batch`), and progressive ones a batch and a crop size for
each part of a stage (`train.phases`, as Restormer does). Each device then takes what it can hold at a
time, `batch_size_per_gpu` samples at most, as often as needed; so one GPU can follow a recipe of eight.
"""
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from tabulate import tabulate
from torch import nn

from k3dn_plugin.data.sampler import Phase
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.files import user_path
from k3dn_plugin.option_schema import DatasetOptions, StageOptions
from k3dn_plugin.options import Options, merge
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.training.graph import REBLUR_PREFIX, TrainingGraph, graph_names, matches
from k3dn_plugin.training.optim import check_optimizer
from k3dn_plugin.training.schedules import check_schedule, learning_rate
from k3dn_plugin.zoo.weights import load_pretrained, read_weights


@dataclass(frozen=True)
class Stage:
    """One stage, all its options resolved. Iterations `start` + 1 to `end` of the run are its own."""

    index: int
    name: str
    start: int
    end: int
    network_g: dict
    dataset: DatasetOptions
    losses: dict
    optim_g: dict
    scheduler: dict
    warmup_iter: int = 0
    ema_decay: float = 0.0
    grad_clip: float | None = None
    accumulate: int = 1
    global_batch: int | None = None
    phases: tuple = ()
    reblur: dict | None = None
    trainable: list | None = field(default=None)

    @property
    def total_iter(self) -> int:
        """How many iterations the stage has."""
        return self.end - self.start


def plan_stages(options: Options) -> list[Stage]:
    """Return the stages of a recipe in order, their optimizers and schedules checked.

    Raises:
        OptionError: there is nothing to train, or an optimizer or schedule is wrong.
    """
    train = options.train
    if train is None or options.datasets.train is None:
        missing = "train" if train is None else "datasets.train"
        raise OptionError(f"{options.source() or 'the options'}: training needs the block `{missing}`")
    if not train.losses:
        raise OptionError("train.losses: name at least one, e.g. {pixel: {type: L1Loss}}")
    common: dict[str, Any] = dict(
        network_g=options.network_g, dataset=options.datasets.train, losses=train.losses,
        optim_g=train.optim_g, scheduler=train.scheduler, warmup_iter=train.warmup_iter,
        ema_decay=train.ema_decay, grad_clip=train.grad_clip, accumulate=train.accumulate,
        global_batch=train.global_batch, phases=tuple(train.phases or ()), reblur=train.reblur)
    if not train.stages:
        stages = [Stage(index=0, name="train", start=0, end=train.total_iter, **common)]
    else:
        stages, start = [], 0
        for index, own in enumerate(train.stages):
            stages.append(Stage(index=index, name=own.name, start=start, end=start + own.total_iter,
                                trainable=own.trainable, **{**common, **_overrides(own, common)}))
            start = stages[-1].end
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise OptionError(f"train.stages: names must differ, found {', '.join(names)}")
    for stage in stages:
        where = f"train.stages[{stage.index}]" if train.stages else "train"
        check_optimizer(stage.optim_g, f"{where}.optim_g")
        check_schedule(stage.scheduler, stage.total_iter, f"{where}.scheduler")
        _check_batches(stage, where)
    return stages


def _check_batches(stage: Stage, where: str) -> None:
    """A batch is stated in one way; phases are as long as their stage."""
    if stage.accumulate > 1 and (stage.global_batch is not None or stage.phases):
        raise OptionError(f"{where}.accumulate is {stage.accumulate}, but {where} also has "
                          f"{'phases' if stage.phases else 'global_batch'}, from which it is computed: leave it out")
    share_stage(stage, 1)


def _overrides(own: StageOptions, common: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Stage` that a stage's block changes."""
    given = {key: getattr(own, key) for key in own.model_fields_set
             if key in common and key not in ("network_g", "optim_g", "scheduler", "datasets_train")
             and (getattr(own, key) is not None or key in ("reblur", "grad_clip", "global_batch"))}
    if "phases" in given:
        given["phases"] = tuple(given["phases"])
    for key in ("network_g", "optim_g", "scheduler"):
        if getattr(own, key) is not None:
            given[key] = merge(common[key], getattr(own, key))
    if own.datasets_train is not None:
        try:
            given["dataset"] = DatasetOptions.model_validate(
                merge(common["dataset"].model_dump(), own.datasets_train))
        except ValidationError as error:
            raise OptionError(f"train.stages ({own.name}).datasets_train: {error}") from None
    return given


def start_from(options: Options, restorer: nn.Module, network_g: dict) -> list[str]:
    """Load `path.pretrain_network_g` into the network of the first stage; return lines about what was left out.

    Weights of the whole network, as a finished run leaves them, start a first stage that lacks some of its parts.

    Raises:
        CheckpointError: they belong to another network.
    """
    assert options.path.pretrain_network_g is not None   # else there is nothing to start from
    path, plan = user_path(options.path.pretrain_network_g), plan_stages(options)
    if options.path.strict_load_g and len(plan) > 1:
        given, own = read_weights(path).state, restorer.state_dict()
        more = [key for key in given if key not in own]
        if more and own.keys() <= given.keys() and all(own[key].shape == given[key].shape for key in own):
            for later in plan[1:]:
                with torch.device("meta"):
                    known = ARCHS.build(later.network_g).state_dict()
                if known.keys() == given.keys() and all(known[key].shape == given[key].shape for key in known):
                    restorer.load_state_dict({key: given[key] for key in own})
                    return [f"{path} holds the network of stage {later.name!r}; its {len(more)} tensors that stage "
                            f"{plan[0].name!r} does not have ({more[0]}, ...) start anew there"]
    return load_pretrained(path, restorer, strict=options.path.strict_load_g, network_g=network_g)


def carried_weights(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return state-dict entries that a finished stage hands on, from its training state.

    The moving average where there is one: it is what was validated, and what a frozen base should be.
    """
    weights = dict(state["ema"] if state["ema"] is not None else state["restorer"])
    for key, value in (state["reblur"] or {}).items():
        weights[REBLUR_PREFIX + key] = value
    return weights


def load_carried(graph: TrainingGraph, weights: Mapping[str, torch.Tensor], stage: Stage, source: str) -> None:
    """Start `stage` from the weights of the stage before.

    Raises:
        CheckpointError: a key is new and not trained in this stage, would be lost, or has another shape.
    """
    wanted = graph_names(graph.restorer, graph.reblur)
    new = [k for k in wanted if k not in weights and not matches(k, stage.trainable)]
    # A reblur module serves training alone; a stage without one may leave it behind.
    lost = [k for k in weights if k not in wanted
            and (graph.reblur is not None or not k.startswith(REBLUR_PREFIX))]
    if new or lost:
        found = [f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
                 for keys, what in ((new, "are new but not trained in this stage"),
                                    (lost, "have no place in it")) if keys]
        raise CheckpointError(f"stage {stage.name!r} cannot start from the weights of {source}: "
                              f"{'; '.join(found)}. Check its `network_g` and `trainable`")
    for part, prefix in ((graph.restorer, ""), (graph.reblur, REBLUR_PREFIX)):
        if part is None:
            continue
        own = part.state_dict()
        state = {k: weights[prefix + k] for k in own if prefix + k in weights}
        shapes = [f"{k}: {tuple(v.shape)} there, {tuple(own[k].shape)} here"
                  for k, v in state.items() if v.shape != own[k].shape]
        if shapes:
            raise CheckpointError(f"stage {stage.name!r} cannot start from the weights of {source}: "
                                  f"shapes differ ({'; '.join(shapes[:3])}). Check its `network_g`")
        part.load_state_dict(state, strict=False)


def share_stage(stage: Stage, devices: int) -> list[Phase]:
    """Return the phases of a `Stage` on that many devices; a stage without phases is one.

    Raises:
        OptionError: the phases are not as long as the stage, or a global batch cannot be shared out evenly.
    """
    limit = stage.dataset.batch_size_per_gpu
    if not stage.phases:
        batch, accumulate = limit, stage.accumulate
        if stage.global_batch is not None:
            batch, accumulate = share(stage.global_batch, devices, limit, f"stage {stage.name!r}")
        return [Phase(stage.total_iter, batch, None, accumulate, devices)]
    length = sum(phase.iterations for phase in stage.phases)
    if length != stage.total_iter:
        raise OptionError(f"train.phases of stage {stage.name!r} have {length:,} iterations together, the stage "
                          f"{stage.total_iter:,}: make them equal")
    shared = []
    for number, phase in enumerate(stage.phases):
        batch, accumulate = share(phase.global_batch, devices, phase.batch_size_per_gpu or limit,
                                  f"phase {number + 1} of stage {stage.name!r}")
        shared.append(Phase(phase.iterations, batch, _pair(phase.crop_size), accumulate, devices))
    return shared


def share(global_batch: int, devices: int, limit: int, where: str) -> tuple[int, int]:
    """Return `(batch, accumulate)` of each device: as many at a time as `limit` allows, the same every time.

    Raises:
        OptionError: `global_batch` is not a multiple of `devices`.
    """
    if global_batch % devices:
        raise OptionError(f"{where}: a global batch of {global_batch} cannot be shared evenly by {devices} "
                          f"devices; use a number of devices that divides it, or change global_batch")
    own = global_batch // devices
    batch = max(size for size in range(1, min(own, limit) + 1) if own % size == 0)
    return batch, own // batch


def _pair(size: Any, where: str = "crop_size of a phase") -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise OptionError(f"{where}: expected one number or [rows, columns], found {size!r}")
    return pair[0], pair[1]


def crop_of(stage: Stage, phase: Phase) -> tuple[int, int] | None:
    """Return (rows, columns) of the crops that a phase trains on, its own or the data set's; None for whole frames.

    Raises:
        OptionError: `crop_size` is neither one number nor two.
    """
    return phase.crop_size or _pair(stage.dataset.arguments().get("crop_size"), "datasets.train.crop_size")


COLUMNS = ("stage", "iterations", "crop", "per device", "accumulate", "global batch", "samples seen",
           "learning rate")


def plan_rows(options: Options, devices: int) -> list[dict]:
    """Return a row a phase of each stage.

    Raises:
        OptionError: a batch cannot be shared by that many devices, or the recipe is wrong.
    """
    rows, seen = [], 0
    for stage in plan_stages(options):
        rate = learning_rate(stage)
        start = 0
        for phase in share_stage(stage, devices):
            end = start + phase.iterations
            seen += phase.iterations * phase.global_batch
            crop = crop_of(stage, phase)
            rows.append({
                "stage": stage.name, "iterations": f"{stage.start + start + 1:,} - {stage.start + end:,}",
                "crop": "whole" if crop is None else "{} x {}".format(*crop),
                "per device": phase.batch_size, "accumulate": phase.accumulate,
                "global batch": phase.global_batch, "samples seen": f"{seen:,}",
                "learning rate": f"{rate(start):.3g} -> {rate(end - 1):.3g}"})
            start = end
    return rows


def plan_text(options: Options, devices: int) -> str:
    """Return `plan_rows` as an aligned table under a line with the recipe's name."""
    table = tabulate([[row[column] for column in COLUMNS] for row in plan_rows(options, devices)], COLUMNS,
                     tablefmt="plain", disable_numparse=True)
    return f"{options.name} on {devices} device{'s' if devices > 1 else ''}\n{table}"
