"""The training loop: fetch, forward, losses, backward, step; everything else is done by hooks (`hooks.py`).

`TrainingComponents` is what one stage trains with, built from its options and filled from a state or from the stage
before.
"""
import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from k3dn_plugin import __version__
from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.data.sampler import Phase, phase_at, samples_before
from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.inference.memory import is_out_of_memory
from k3dn_plugin.options import Options
from k3dn_plugin.registry import ARCHS, LOSSES, MODULES
from k3dn_plugin.training import randomness
from k3dn_plugin.training.data_module import DataModule
from k3dn_plugin.training.distributed import ProcessGroup
from k3dn_plugin.training.experiment import Experiment
from k3dn_plugin.training.graph import TrainingGraph, parameters_behind
from k3dn_plugin.training.hooks import Hook
from k3dn_plugin.training.norms import synchronize_norms
from k3dn_plugin.training.optim import Precision, build_optimizer, moving_average
from k3dn_plugin.training.schedules import build_schedule
from k3dn_plugin.training.stages import Stage, carried_weights, load_carried, share_stage, start_from
from k3dn_plugin.training.stopping import StopRequest, check_finite

logger = logging.getLogger("k3dn_plugin.training")


class TrainingComponents:
    """Graph, optimizer, schedule, moving average and precision of one stage.

    Args:
        stage: the `Stage`.
        options: of the run.
        group: this process's `ProcessGroup`.
        previous: the training state that the stage before ended with, or None.
        warn: called with a message about weights that `path.strict_load_g: false` leaves out.
    """

    def __init__(self, stage: Stage, options: Options, group: ProcessGroup, *, previous: dict[str, Any] | None = None,
                 warn: Callable[[str], None] = print):
        # Seeded a stage, so that a stage starts alike whether or not the run was interrupted before it.
        seed = options.manual_seed + stage.index
        randomness.seed_everything(seed)
        restorer = ARCHS.build(stage.network_g)
        losses = {name: LOSSES.build(spec) for name, spec in stage.losses.items()}
        self.graph = TrainingGraph(
            restorer, trainable=stage.trainable, losses=losses,
            reblur=MODULES.build(stage.reblur) if stage.reblur else None)
        if previous is not None:
            load_carried(self.graph, carried_weights(previous), stage, f"stage {previous['stage_name']!r}")
        elif stage.index == 0 and options.path.pretrain_network_g is not None:
            for line in start_from(options, restorer, stage.network_g):
                warn(f"path.pretrain_network_g: {line}")
        # A loss that does not declare what it reads may read anything.
        if stage.reblur and not any("reblurred" in getattr(loss, "reads", ("reblurred",)) for loss in losses.values()):
            warn(f"train.reblur: {stage.reblur['type']} is computed, but no loss of stage {stage.name!r} reads what it "
                 "gives; add one: --set train.losses.reblur.type=ReblurConsistency")
        if group.size > 1 and group.device.type == "cuda":
            # On the CPU torch has no synchronized batch norm: statistics are then those of each process.
            synchronize_norms(self.graph)
        self.graph.to(group.device).train()
        if options.train.channels_last:
            restorer.to(memory_format=torch.channels_last)
        if options.train.compile:
            self.graph.compile()
        self.restorer = self.graph.restorer
        self.precision = Precision(options.train.amp, group.device)
        self.parameters = self.graph.trained_parameters()
        self.optimizer = build_optimizer(stage.optim_g, self.parameters)
        self.scheduler = build_schedule(stage.scheduler, self.optimizer, total_iter=stage.total_iter,
                                        warmup_iter=stage.warmup_iter)
        self.ema = moving_average(self.restorer, stage.ema_decay)
        self.model, self._group = self.graph, group
        # Processes share their initial weights, not their dropout.
        randomness.seed_everything(seed + 1000 * group.rank)

    def wrap(self, batches: Iterator[dict], on_device: Callable[[dict], dict]) -> Iterator[dict]:
        """Let several processes exchange gradients in `model` from here on; return the same batches.

        What the first one shows to be without a gradient (a part that no loss of the recipe reads) must not be waited
        for in each step; looking for it costs time, so that is done only where there is some.
        """
        if self._group.size == 1:
            return batches
        first = next(batches)
        varies = any(getattr(part, "varying_graph", False) for part in self.graph.modules())
        unused = varies or self._has_unused(on_device(first))
        self.model = self._group.wrap(self.graph, find_unused=bool(self._group.largest(int(unused))))
        return itertools.chain([first], batches)

    def _has_unused(self, batch: dict) -> bool:
        """Whether some trained parameter gets no gradient; the parts' buffers and generators stay as they are."""
        before = [(buffer, buffer.clone()) for buffer in self.graph.buffers()]
        with randomness.preserved(self._group.device):
            with self.precision.autocast():
                losses = self.graph(batch)
            reached = parameters_behind(sum(losses.values()))
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        return any(parameter not in reached for parameter in self.parameters)

    @property
    def validated(self) -> Restorer:
        """The restorer that is validated and published: the moving average where there is one."""
        return self.restorer if self.ema is None else self.ema.module

    def state_dict(self) -> dict[str, Any]:
        """The entries of a training state that belong to the stage's objects."""
        return {
            "restorer": self.restorer.state_dict(),
            "reblur": None if self.graph.reblur is None else self.graph.reblur.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "ema_updates": 0 if self.ema is None else int(self.ema.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from the entries that `state_dict` gave.

        Raises:
            CheckpointError: they do not fit the stage.
        """
        try:
            self.restorer.load_state_dict(state["restorer"])
            if self.graph.reblur is not None:
                self.graph.reblur.load_state_dict(state["reblur"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
                self.ema.n_averaged.fill_(state["ema_updates"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.precision.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(f"the training state of iteration {state['iteration']:,} does not fit stage "
                                  f"{state['stage_name']!r} ({str(error).splitlines()[0][:300]}): it is damaged. "
                                  "Resume from an older state") from error
        # The rate of the schedule as it is now: a run that goes on for longer has another curve.
        for group, base, rate in zip(self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas,
                                     strict=True):
            group["lr"] = base * rate(self.scheduler.last_epoch)

    def not_finite(self) -> str | None:
        """The name of the first weight that holds NaN or infinity, or None."""
        named = [*self.graph.named_parameters(), *self.graph.named_buffers()]
        return next((name for name, tensor in named if not tensor.isfinite().all()), None)


class Trainer:
    """Trains the stages of a plan, from the beginning or from a training state.

    Hooks read and write `iteration` (done, in the whole run), `stage`, `components`, `losses`, `lr` and
    `grad_norm` of the last iteration, `history` (the logged rows), `validation` (scores of this iteration,
    or None), `best` (of the run), `safe_state` (the last state's path), `stopping` (a signal's number).

    Args:
        options: of the run.
        plan: its `Stage`s.
        data: the `DataModule` of the run.
        group: this process's `ProcessGroup`.
        experiment: the run's folder.
        hooks: called at each named point, in this order.
        stop: the `StopRequest` in force.
    """

    def __init__(self, options: Options, *, plan: Sequence[Stage], data: DataModule, group: ProcessGroup,
                 experiment: Experiment, hooks: Sequence[Hook], stop: StopRequest):
        self.options, self.plan, self.data, self.group = options, plan, data, group
        self.experiment, self.hooks, self.stop = experiment, hooks, stop
        # Of the stage that is being trained; there is none before `run`.
        self.stage: Any = None
        self.components: Any = None
        self.best: dict[str, Any] | None = None
        self.validation: dict[str, float] | None = None
        self.safe_state: Path | None = None
        self.iteration = self.first_iteration = self.stopping = 0
        self.losses: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.lr, self.grad_norm = 0.0, None
        self.seconds = self.step_seconds = self.data_seconds = 0.0

    @property
    def total_iter(self) -> int:
        """How many iterations the run has."""
        return self.plan[-1].end

    @property
    def finished(self) -> bool:
        """Whether the last stage has ended."""
        return self.iteration >= self.total_iter

    def run(self, state: dict[str, Any] | None = None) -> None:
        """Train until the last stage ends, or a signal asks to stop."""
        if state is not None:
            self.iteration = self.first_iteration = state["iteration"]
            self.seconds, self.best = state["seconds"], state["best"]
            self.history = json.loads(state["history"])
        try:
            self._call("before_run")
            for stage in self.plan:
                if self.iteration < stage.end and not self.stopping:
                    state = self._train_stage(stage, state)
        finally:
            self._call("close")

    def _train_stage(self, stage: Stage, state: dict[str, Any] | None) -> dict[str, Any]:
        """Train one stage; return the state that it ends with. `state` is within it, or just before."""
        resumed = state if state is not None and state["stage"] == stage.index else None
        self.stage = stage
        self.components = TrainingComponents(stage, self.options, self.group,
                                 previous=None if resumed else state, warn=logger.warning)
        if resumed:
            self.components.load_state_dict(resumed)
        # Closed at the end, after an error too, so that its workers end.
        with contextlib.closing(iter(self.data.batches(stage, self.iteration - stage.start))) as batches:
            if resumed:
                # After building the network, which draws random numbers itself.
                self._go_on_drawing(resumed)
            batches = self.components.wrap(batches, self._on_device)
            self._call("before_stage")
            while self.iteration < stage.end and not self.stopping:
                self._step(batches)
                self.iteration += 1
                self._call("after_iteration")
        return self.state()

    def _go_on_drawing(self, state: dict[str, Any]) -> None:
        """Put the random generators where they were; other processes than those that saved the state start anew."""
        if state["world_size"] == self.group.size:
            randomness.restore(state["rng"][self.group.rank], self.group.device)
        else:
            randomness.seed_everything(self.options.manual_seed + 1000 * self.group.rank + 1_000_003 * self.iteration)

    def _step(self, batches: Iterator[dict]) -> None:
        """One iteration over `accumulate` micro-batches; their mean gradient is that of the whole batch."""
        began, self.data_seconds, self.validation = time.perf_counter(), 0.0, None
        parts, count, losses, names = self.components, self.phase.accumulate, [], []
        for micro in range(count):
            batch, named = self._fetch(batches)
            with self.group.synchronized(parts.model, last=micro == count - 1):
                with parts.precision.autocast():
                    found = parts.model(batch)
                parts.precision.scaler.scale(sum(found.values()) / count).backward()
            losses.append({name: value.detach() for name, value in found.items()})
            names.append(named)
        parts.precision.scaler.unscale_(parts.optimizer)
        if self.stage.grad_clip is not None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(parts.parameters, self.stage.grad_clip)
        self.lr = parts.optimizer.param_groups[0]["lr"]
        parts.precision.scaler.step(parts.optimizer)
        parts.precision.scaler.update()
        parts.optimizer.zero_grad(set_to_none=True)
        parts.scheduler.step()
        parts.restorer.after_iteration()
        if parts.ema is not None:
            parts.ema.update_parameters(parts.restorer)
        # Read last, and once: until here nothing has made the host wait for the device.
        values, self.stopping = self.group.share(losses, self.stop.signal)
        for found, named in zip(values, names, strict=True):
            check_finite(found, named, self)
        self.losses = {name: sum(found[name] / count for found in values) for name in values[0]}
        self.step_seconds = time.perf_counter() - began
        self.seconds += self.step_seconds

    def _fetch(self, batches: Iterator[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[str]]:
        """`(tensors on the device, names)` of the next batch."""
        began = time.perf_counter()
        batch = next(batches)
        tensors = self._on_device(batch)
        self.data_seconds += time.perf_counter() - began
        return tensors, batch.get("name", [])

    def _on_device(self, batch: dict) -> dict[str, torch.Tensor]:
        # Where crops lie is read as numbers, for which the host would have to wait.
        return {key: value if key == "window" else value.to(self.group.device, non_blocking=True)
                for key, value in batch.items() if torch.is_tensor(value)}

    def row(self) -> dict[str, Any]:
        """The row of `history` that belongs to this iteration, made if there is none yet."""
        if not self.history or self.history[-1]["iteration"] != self.iteration:
            self.history.append({"iteration": self.iteration, "stage": self.stage.name})
        return self.history[-1]

    def latest_scores(self) -> dict[str, Any] | None:
        """Scores of the last validation, with its iteration; None if there was none."""
        for row in reversed(self.history):
            scores = {k[4:]: v for k, v in row.items() if k.startswith("val/")}
            if scores:
                return {"iteration": row["iteration"], **scores}
        return None

    @property
    def phase(self) -> Phase:
        """How the batch of the next iteration is shared out (`data.sampler.Phase`)."""
        return phase_at(share_stage(self.stage, self.group.size), self.iteration - self.stage.start)

    @property
    def batch(self) -> int:
        """Samples that an iteration sees, over all processes and micro-batches."""
        return self.phase.global_batch

    @property
    def samples_seen(self) -> int:
        """Samples seen in the whole run."""
        return sum(samples_before(share_stage(stage, self.group.size),
                                  min(self.iteration, stage.end) - stage.start)
                   for stage in self.plan if self.iteration > stage.start)

    def state(self) -> dict[str, Any]:
        """The training state (`state.py`) at this moment; every process must call it."""
        return {
            "iteration": self.iteration, "stage": self.stage.index, "stage_name": self.stage.name,
            **self.components.state_dict(),
            "rng": self.group.gather(randomness.capture(self.group.device)),
            "world_size": self.group.size, "batch": self.batch,
            "best": self.best, "history": json.dumps(self.history), "seconds": self.seconds,
            "data": self.data.hashes(),
            "options": json.loads(json.dumps(self.options.as_dict())), "options_hash": self.options.hash(),
            "versions": {"k3dn_plugin": __version__, "torch": str(torch.__version__)},
        }

    def _call(self, point: str) -> None:
        for hook in self.hooks:
            getattr(hook, point)(self)
