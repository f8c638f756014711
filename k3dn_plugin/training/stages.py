"""Stages: what each part of a recipe trains, and what it takes over from the part before.

A recipe without `train.stages` is one stage. A stage's keys stand in for those of `train`: `network_g`,
`datasets_train`, `optim_g` and `scheduler` are merged into them, `losses` and the plain values replace
them. The weights that a stage ends with (their moving average, where one is kept) start the next one.
"""
from dataclasses import dataclass, field

from pydantic import ValidationError

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.option_schema import DatasetOptions
from k3dn_plugin.options import merge
from k3dn_plugin.training.graph import REBLUR_PREFIX, graph_names, matches
from k3dn_plugin.training.optim import check_optimizer
from k3dn_plugin.training.phases import share_stage
from k3dn_plugin.training.schedule import check_schedule


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
    def total_iter(self):
        return self.end - self.start


def plan_stages(options):
    """The stages of a recipe in order, their optimisers and schedules checked.

    Raises:
        OptionError: there is nothing to train, or an optimiser or schedule is wrong.
    """
    train = options.train
    if train is None or options.datasets.train is None:
        missing = "train" if train is None else "datasets.train"
        raise OptionError(f"{options.source() or 'the options'}: training needs the block `{missing}`")
    if not train.losses:
        raise OptionError("train.losses: name at least one, e.g. {pixel: {type: L1Loss}}")
    common = dict(network_g=options.network_g, dataset=options.datasets.train, losses=train.losses,
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


def _check_batches(stage, where):
    """A batch is stated in one way; phases are as long as their stage."""
    if stage.accumulate > 1 and (stage.global_batch is not None or stage.phases):
        raise OptionError(f"{where}.accumulate is {stage.accumulate}, but {where} also has "
                          f"{'phases' if stage.phases else 'global_batch'}, from which it is computed: leave it out")
    share_stage(stage, 1)


def _overrides(own, common):
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


def carried_weights(state):
    """State-dict entries that a finished stage hands on, from its training state.

    The moving average where there is one: it is what was validated, and what a frozen base should be.
    """
    weights = dict(state["ema"] if state["ema"] is not None else state["restorer"])
    for key, value in (state["reblur"] or {}).items():
        weights[REBLUR_PREFIX + key] = value
    return weights


def load_carried(graph, weights, stage, source):
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
