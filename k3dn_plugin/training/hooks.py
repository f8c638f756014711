"""Hooks called by the trainer: log, progress, validation, metrics.csv, training states, TensorBoard.

A hook overrides what it needs of `Hook`; `default_hooks` lists those of a run in their order.
"""
import contextlib
import csv
import datetime
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from k3dn_plugin.errors import DependencyError
from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.evaluation.provenance import describe_data, device_name, versions
from k3dn_plugin.evaluation.results import EvaluationResult
from k3dn_plugin.files import atomic_write, storage_error
from k3dn_plugin.option_schema import ValOptions
from k3dn_plugin.options import Options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.training import randomness
from k3dn_plugin.training.distributed import ProcessGroup
from k3dn_plugin.training.state import save_state
from k3dn_plugin.training.stopping import check_weights
from k3dn_plugin.zoo.load import load_restorer
from k3dn_plugin.zoo.weights import save_weights

logger = logging.getLogger("k3dn_plugin.training")


def save_published(path: Path, trainer: Any) -> None:
    """Write the validated weights of `trainer` (the moving average where there is one) to `path`."""
    save_weights(path, trainer.components.validated, network_g=trainer.stage.network_g,
                 provenance=provenance(trainer))


def provenance(trainer: Any) -> dict[str, Any]:
    """Where the present weights come from, as a JSON mapping."""
    options, stage = trainer.options, trainer.stage
    dataset = trainer.data.training(stage)
    return {
        "origin": "trained here", "run": options.name, "recipe": str(options.source() or ""),
        "options_hash": options.hash(), "seed": options.manual_seed, "stage": stage.name,
        "stages": [one.name for one in trainer.plan],
        "iteration": trainer.iteration,
        "samples_seen": trainer.samples_seen, "moving_average": stage.ema_decay or None,
        "data": describe_data(dataset), "data_hash": trainer.data.hashes()[stage.index],
        "validation": trainer.latest_scores(),
        "protocol": options.val.protocol if options.datasets.val is not None else None,
        "device": device_name(trainer.group.device), "processes": trainer.group.size,
        "versions": versions(),
    }


class Hook:
    """Something that happens beside training. Every method gets the `Trainer`; most hooks need one or two."""

    def before_run(self, trainer: Any) -> None:
        """Once, after the training state, if any, has been read and before the first stage is built."""

    def before_stage(self, trainer: Any) -> None:
        """The stage's network, optimizer and loader are ready."""

    def after_iteration(self, trainer: Any) -> None:
        """`trainer.iteration` counts the iteration that has just ended."""

    def close(self, trainer: Any) -> None:
        """Close files; called last, after an error too."""


def due(trainer: Any, frequency: int) -> bool:
    """Whether something that happens every `frequency` iterations, and at a stage's end, happens now."""
    return trainer.iteration % frequency == 0 or trainer.iteration == trainer.stage.end


class LogHook(Hook):
    """A block `[name][epoch, iter, lr] [eta, time (data)] losses` every `logger.print_freq` iterations."""

    def before_run(self, trainer: Any) -> None:
        self._began = time.perf_counter()

    def before_stage(self, trainer: Any) -> None:
        stage, parts = trainer.stage, trainer.components
        count = sum(p.numel() for p in parts.restorer.parameters())
        trained = sum(p.numel() for p in parts.parameters)
        logger.info("stage %r (%d of %d): iterations %s to %s, %s with %s parameters, %s trained, "
                    "%d samples an iteration", stage.name, stage.index + 1, len(trainer.plan),
                    f"{trainer.iteration + 1:,}", f"{stage.end:,}", stage.network_g["type"], f"{count:,}",
                    f"{trained:,}", trainer.batch)

    def after_iteration(self, trainer: Any) -> None:
        if due(trainer, trainer.options.logger.print_freq):
            logger.info(self._block(trainer))

    def _block(self, trainer: Any) -> str:
        stage = trainer.stage
        epoch = (trainer.iteration - stage.start) * trainer.batch // len(trainer.data.training(stage))
        losses = " ".join(f"{name}: {value:.4e}" for name, value in trainer.losses.items())
        return (f"[{trainer.options.name[:12]}..][{stage.name}, epoch:{epoch:3d}, "
                f"iter:{trainer.iteration:8,d}, lr:({trainer.lr:.3e},)] [eta: {self._eta(trainer)}, "
                f"time (data): {trainer.step_seconds:.3f} ({trainer.data_seconds:.3f})] {losses}")

    def _eta(self, trainer: Any) -> datetime.timedelta:
        done = trainer.iteration - trainer.first_iteration
        left = trainer.total_iter - trainer.iteration
        seconds = (time.perf_counter() - self._began) / max(done, 1) * left
        return datetime.timedelta(seconds=int(seconds))


class ProgressHook(Hook):
    """A tqdm bar over all iterations of the run, on a terminal."""

    _bar: Any = None

    def before_run(self, trainer: Any) -> None:
        self._bar = tqdm(total=trainer.total_iter, initial=trainer.iteration, unit="it", dynamic_ncols=True,
                         desc=trainer.options.name, leave=False)

    def after_iteration(self, trainer: Any) -> None:
        self._bar.update()
        if trainer.iteration % 10 == 0:
            self._bar.set_postfix(trainer.losses, refresh=False)

    def close(self, trainer: Any) -> None:
        if self._bar is not None:
            self._bar.close()


class ConsoleHandler(logging.Handler):
    """Log lines above the progress bar, without tearing it; `sys.stdout` is a `LastingStream` meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class ValidationHook(Hook):
    """Every `val.val_freq` iterations, and at the end of each stage, scores the validated weights.

    Processes share the images: each image is restored by one of them. models/best.safetensors keeps the
    weights that score best in the whole run, whichever stage they come from, by the protocol's first metric:
    PSNR in all of ours. Pictures go to pictures/<image>_<iteration>.png.

    Args:
        dataset: the validation set.
        options: the block `val`.
        progress: show a bar over the images, on a terminal.
    """

    def __init__(self, dataset: Any, options: ValOptions, *, progress: bool = False):
        self._dataset, self._options, self._progress = dataset, options, progress
        self._protocol = PROTOCOLS.build({"type": options.protocol})

    def after_iteration(self, trainer: Any) -> None:
        if not due(trainer, self._options.val_freq):
            return
        scores = trainer.validation = self._evaluate(trainer).means()
        trainer.row().update({f"val/{name}": value for name, value in scores.items()})
        better = trainer.best is None or self._rank(scores) > self._rank(trainer.best["scores"])
        if better:
            trainer.best = {"iteration": trainer.iteration, "scores": scores}
            if trainer.group.is_main:
                save_published(trainer.experiment.best_weights, trainer)
        logger.info("validation at iteration %s (%s, %d images): %s%s", f"{trainer.iteration:,}",
                    self._options.protocol, len(self._dataset), show_scores(scores),
                    ", the best so far" if better else "")

    def _evaluate(self, trainer: Any) -> EvaluationResult:
        """The whole `EvaluationResult`, on every process."""
        parts, group, options = trainer.components, trainer.group, self._options
        group.share_buffers(parts.validated)
        working = trainer.experiment.working if options.save_img else None
        # Frames are tiled and of many sizes: trying algorithms for each would cost more than it saves.
        with randomness.preserved(group.device), _without_trials():
            loaded = load_restorer(parts.validated, device=group.device, tile=options.tile,
                                   max_memory_gb=options.max_memory_gb)
            mine = evaluate(loaded, self._dataset, self._protocol, save_pictures=options.save_img, out_dir=working,
                            rank=group.rank, world_size=group.size, progress=None if self._progress else False)
        parts.graph.train()  # frozen batch norms know themselves; `evaluate` does not
        result = EvaluationResult.merged(group.gather(mine))
        if working is not None and group.is_main:
            for picture in result.pictures:
                os.replace(picture, trainer.experiment.pictures
                           / f"{picture.stem}_{trainer.iteration:08d}{picture.suffix}")
            shutil.rmtree(working, ignore_errors=True)
        return result

    def _rank(self, scores: Mapping[str, float]) -> float:
        value = scores[self._protocol.ranking]
        if math.isnan(value):
            return -math.inf
        return value if self._protocol.higher_is_better(self._protocol.ranking) else -value


@contextlib.contextmanager
def _without_trials() -> Iterator[None]:
    """Context in which cuDNN tries no algorithms for each new size."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def show_scores(scores: Mapping[str, float]) -> str:
    """Return `psnr 27.1234 (input 25.1000), ...`."""
    return ", ".join(f"{name} {value:.4f}" + (f" (input {scores['input_' + name]:.4f})"
                                              if "input_" + name in scores else "")
                     for name, value in scores.items() if not name.startswith("input_"))


class RecordHook(Hook):
    """Adds rows to `trainer.history` and keeps metrics.csv equal to it.

    The rows are part of the training state, so that a resumed run's file has no row twice and none from
    iterations that are computed again.
    """

    def __init__(self) -> None:
        self._columns = []

    def before_run(self, trainer: Any) -> None:
        self._rewrite(trainer)

    def after_iteration(self, trainer: Any) -> None:
        if due(trainer, trainer.options.logger.print_freq):
            trainer.row().update(lr=trainer.lr, **{f"loss/{k}": v for k, v in trainer.losses.items()})
        if trainer.history and trainer.history[-1]["iteration"] == trainer.iteration:
            self._append(trainer)

    def _append(self, trainer: Any) -> None:
        row = trainer.history[-1]
        if any(column not in self._columns for column in row):
            self._rewrite(trainer)
            return
        path = trainer.experiment.metrics
        try:
            with open(path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise storage_error(path, error) from error

    def _rewrite(self, trainer: Any) -> None:
        self._columns = list(dict.fromkeys(column for row in trainer.history for column in row))
        with atomic_write(trainer.experiment.metrics, "w", newline="", encoding="utf-8") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(trainer.history)


class CheckpointHook(Hook):
    """Saves a state and models/last.safetensors every `logger.save_checkpoint_freq` iterations, at the end
    of each stage and before stopping. A stage that is not the last also leaves models/<its name>.safetensors.
    """

    def after_iteration(self, trainer: Any) -> None:
        if not (due(trainer, trainer.options.logger.save_checkpoint_freq) or trainer.stopping):
            return
        check_weights(trainer)
        state = trainer.state()  # every process takes part
        if trainer.group.is_main:
            experiment, stage = trainer.experiment, trainer.stage
            save_published(experiment.last_weights, trainer)
            if trainer.iteration == stage.end and stage is not trainer.plan[-1]:
                save_published(experiment.models / f"{stage.name}.safetensors", trainer)
            # The state comes last: a run killed before it is written does all this again.
            trainer.safe_state = save_state(experiment.states, state,
                                            keep=trainer.options.logger.keep_checkpoints)
            logger.info("saved %s", trainer.safe_state)


class TensorBoardHook(Hook):
    """Writes the rows of metrics.csv, and the validation pictures, to tb/.

    On resume, TensorBoard drops what lies behind the resumed iteration.
    """

    _writer: Any = None

    def before_run(self, trainer: Any) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # optional
        except ImportError as error:
            raise DependencyError(f"logger.use_tb_logger needs tensorboard, which is not importable ({error})"
                                  ". Install it (pip install tensorboard), or set "
                                  "logger.use_tb_logger=false") from error
        self._writer = SummaryWriter(trainer.experiment.tensorboard, purge_step=trainer.iteration + 1)

    def after_iteration(self, trainer: Any) -> None:
        if due(trainer, trainer.options.logger.print_freq):
            self._writer.add_scalar("lr", trainer.lr, trainer.iteration)
            for name, value in trainer.losses.items():
                self._writer.add_scalar(f"loss/{name}", value, trainer.iteration)
        for name, value in (trainer.validation or {}).items():
            self._writer.add_scalar(f"val/{name}", value, trainer.iteration)

    def close(self, trainer: Any) -> None:
        if self._writer is not None:
            self._writer.close()


def default_hooks(options: Options, data: Any, group: ProcessGroup, *, progress: bool = False) -> list[Hook]:
    """Return the hooks of a run in their order: scores come before rows and states, which hold them."""
    hooks: list[Hook] = [LogHook()] if group.is_main else []
    if data.validation is not None:
        hooks.append(ValidationHook(data.validation, options.val, progress=progress))
    if group.is_main:
        hooks.append(RecordHook())
        if options.logger.use_tb_logger:
            hooks.append(TensorBoardHook())
    hooks.append(CheckpointHook())
    if group.is_main and progress:
        hooks.append(ProgressHook())
    return hooks
