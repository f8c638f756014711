"""The loop: fetch, forward, losses, backward, step. Everything else hangs on its named points (`hooks/`)."""
import json
import logging
import time

import torch

from k3dn_plugin import __version__
from k3dn_plugin.training import randomness
from k3dn_plugin.training.assembly import Assembly
from k3dn_plugin.training.guard import check_finite
from k3dn_plugin.training.phases import phase_at, samples_before, share_stage

logger = logging.getLogger("k3dn_plugin.training")


class Trainer:
    """Trains the stages of a plan, from the beginning or from a training state.

    Hooks read and write `iteration` (done, in the whole run), `stage`, `assembly`, `losses`, `lr` and
    `grad_norm` of the last iteration, `history` (the logged rows), `validation` (scores of this iteration,
    or None), `best` (of the stage), `safe_state` (the last state's path), `stopping` (a signal's number).

    Args:
        options: of the run.
        plan: its `Stage`s.
        feed: the `Feed` of the run.
        world: this process's `World`.
        experiment: the run's folder.
        hooks: called at each named point, in this order.
        stop: the `StopRequest` in force.
    """

    def __init__(self, options, *, plan, feed, world, experiment, hooks, stop):
        self.options, self.plan, self.feed, self.world = options, plan, feed, world
        self.experiment, self.hooks, self.stop = experiment, hooks, stop
        self.stage = self.assembly = self.best = self.validation = self.safe_state = None
        self.iteration = self.first_iteration = self.stopping = 0
        self.losses, self.history, self.lr, self.grad_norm = {}, [], 0.0, None
        self.seconds = self.step_seconds = self.data_seconds = 0.0

    @property
    def total_iter(self):
        return self.plan[-1].end

    @property
    def finished(self):
        return self.iteration >= self.total_iter

    def run(self, state=None):
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

    def _train_stage(self, stage, state):
        """Train one stage; return the state that it ends with. `state` is within it, or just before."""
        resumed = state if state is not None and state["stage"] == stage.index else None
        self.stage = stage
        self.assembly = Assembly(stage, self.options, self.world,
                                 previous=None if resumed else state, warn=logger.warning)
        if resumed:
            self.assembly.load_state_dict(resumed)
        else:
            self.best = None
        batches = iter(self.feed.batches(stage, self.iteration - stage.start))
        if resumed:
            # After building the network, which draws random numbers itself.
            own = resumed["rng"][min(self.world.rank, len(resumed["rng"]) - 1)]
            randomness.restore(own, self.world.device)
        self._call("before_stage")
        while self.iteration < stage.end and not self.stopping:
            self._step(batches)
            self.iteration += 1
            self.stopping = self.world.largest(self.stop.signal)
            self._call("after_iteration")
        return self.state()

    def _step(self, batches):
        """One iteration over `accumulate` micro-batches; their mean gradient is that of the whole batch."""
        began, self.data_seconds, self.validation = time.perf_counter(), 0.0, None
        parts, count, sums = self.assembly, self.phase.accumulate, {}
        for micro in range(count):
            batch, names = self._fetch(batches)
            with self.world.synchronised(parts.model, last=micro == count - 1):
                with parts.precision.autocast():
                    losses = parts.model(batch)
                values = self.world.mean(losses)
                check_finite(values, names, self)
                parts.precision.scaler.scale(sum(losses.values()) / count).backward()
            sums = {name: sums.get(name, 0.0) + value / count for name, value in values.items()}
        parts.precision.scaler.unscale_(parts.optimizer)
        if self.stage.grad_clip is not None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(parts.parameters, self.stage.grad_clip)
        self.losses, self.lr = sums, parts.optimizer.param_groups[0]["lr"]
        parts.precision.scaler.step(parts.optimizer)
        parts.precision.scaler.update()
        parts.optimizer.zero_grad(set_to_none=True)
        parts.scheduler.step()
        if parts.ema is not None:
            parts.ema.update_parameters(parts.restorer)
        self.step_seconds = time.perf_counter() - began
        self.seconds += self.step_seconds

    def _fetch(self, batches):
        """`(tensors on the device, names)` of the next batch."""
        began = time.perf_counter()
        batch = next(batches)
        device = self.world.device
        tensors = {k: v.to(device, non_blocking=True) for k, v in batch.items() if torch.is_tensor(v)}
        self.data_seconds += time.perf_counter() - began
        return tensors, batch.get("name", [])

    def row(self):
        """The row of `history` that belongs to this iteration, made if there is none yet."""
        if not self.history or self.history[-1]["iteration"] != self.iteration:
            self.history.append({"iteration": self.iteration, "stage": self.stage.name})
        return self.history[-1]

    def latest_scores(self):
        """Scores of the last validation, with its iteration; None if there was none."""
        for row in reversed(self.history):
            scores = {k[4:]: v for k, v in row.items() if k.startswith("val/")}
            if scores:
                return {"iteration": row["iteration"], **scores}
        return None

    @property
    def phase(self):
        """How the batch of the next iteration is shared out (`SharedPhase`)."""
        return phase_at(share_stage(self.stage, self.world.size), self.iteration - self.stage.start)

    @property
    def batch(self):
        """Samples that an iteration sees, over all processes and micro-batches."""
        return self.phase.global_batch

    @property
    def samples_seen(self):
        """Samples seen in the whole run."""
        return sum(samples_before(share_stage(stage, self.world.size),
                                  min(self.iteration, stage.end) - stage.start)
                   for stage in self.plan if self.iteration > stage.start)

    def state(self):
        """The training state (`state.py`) at this moment; every process must call it."""
        return {
            "iteration": self.iteration, "stage": self.stage.index, "stage_name": self.stage.name,
            **self.assembly.state_dict(),
            "rng": self.world.gather(randomness.capture(self.world.device)),
            "world_size": self.world.size, "batch": self.batch,
            "best": self.best, "history": json.dumps(self.history), "seconds": self.seconds,
            "options": json.loads(json.dumps(self.options.as_dict())), "options_hash": self.options.hash(),
            "versions": {"k3dn_plugin": __version__, "torch": str(torch.__version__)},
        }

    def _call(self, point):
        for hook in self.hooks:
            getattr(hook, point)(self)
