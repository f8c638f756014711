"""One call trains a recipe: options in, weights and figures out."""
import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from k3dn_plugin.console import command_line, lasting_output
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.evaluate import check_data
from k3dn_plugin.files import storage_error, user_path
from k3dn_plugin.options import Options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.training import randomness
from k3dn_plugin.training.data_module import DataModule
from k3dn_plugin.training.distributed import launched
from k3dn_plugin.training.experiment import Experiment, check_same_run, logging_to
from k3dn_plugin.training.hooks import ConsoleHandler, default_hooks, show_scores
from k3dn_plugin.training.stages import Stage, plan_stages
from k3dn_plugin.training.state import load_state
from k3dn_plugin.training.stopping import StopRequest, explained
from k3dn_plugin.training.trainer import Trainer
from k3dn_plugin.zoo.weights import read_weights

logger = logging.getLogger("k3dn_plugin.training")


@dataclass(frozen=True)
class TrainingResult:
    """What a run left.

    Attributes:
        folder: the experiment's folder.
        finished: whether all iterations are done.
        stopped_by: number of the signal that stopped it early, or 0.
        iterations, samples_seen: in the whole run, over all processes.
        seconds: spent in training steps in the whole run, without validation and set-up.
        best: {"iteration", "scores"} of the best validation, or None.
        scores: {"iteration", score...} of the last validation, or None.
        best_weights, last_weights: weights files; None where there is none.
        history: the rows of metrics.csv.
    """

    folder: Path
    finished: bool
    stopped_by: int
    iterations: int
    samples_seen: int
    seconds: float
    best: dict | None
    scores: dict | None
    best_weights: Path | None
    last_weights: Path | None
    history: list


def train(options: Options, *, resume: str | None = None, device: str = "auto", launcher: str = "none",
          overwrite: bool = False, quiet: bool = False) -> TrainingResult:
    """Train the recipe `options` (see `k3dn_plugin.options.load_options`).

    Torch's settings, the random generators, signal handlers and logging are as before when it returns.

    Args:
        resume: None, "auto" (the newest readable state of this run, or a fresh start), a state file or
            the folder of a run; None takes `path.resume_state`.
        device: "auto", "cpu" or "cuda".
        launcher: "none", "pytorch" or "slurm".
        overwrite: start afresh where a run lies; its folder is renamed, not deleted.
        quiet: write to the log file alone.

    Returns:
        a `TrainingResult`, also where Ctrl-C stopped training early.

    Raises:
        OptionError, RegistryError, DataError, CheckpointError, StorageError, TrainingError: each with
            what was expected, found, and what to do.
    """
    plan = plan_stages(options)
    experiment = Experiment.of(options)
    resume = resume or options.path.resume_state
    with contextlib.ExitStack() as stack:
        stack.enter_context(lasting_output())
        group = stack.enter_context(launched(launcher, device, options.dist_params.backend))
        stack.enter_context(_settings(options, group.device))
        visible = group.is_main and not quiet
        stack.enter_context(logging_to(ConsoleHandler() if visible else logging.NullHandler()))
        data = DataModule(options, plan, group)  # missing data is reported before anything is built or written
        if data.validation is not None:   # so is a protocol that does not fit, which else the first validation would
            check_data(data.validation, PROTOCOLS.build({"type": options.val.protocol}))
        group.from_main(lambda: _check_pretrained(options, experiment, overwrite))
        group.from_main(lambda: _enter(stack, experiment.lock()))
        path = group.from_main(lambda: _prepare(experiment, options, resume, overwrite, plan=plan, data=data,
                                                processes=group.size))
        state = None if path is None else load_state(path)
        if group.is_main:
            stack.enter_context(_log_file(experiment))
        stop = stack.enter_context(StopRequest(logger.warning, patient=group.size > 1))
        stack.enter_context(explained(options, experiment.folder))
        hooks = default_hooks(options, data, group, progress=visible and sys.stderr.isatty())
        trainer = Trainer(options, plan=plan, data=data, group=group, experiment=experiment, hooks=hooks,
                          stop=stop)
        _announce(trainer, path)
        trainer.safe_state = path
        trainer.run(state)
        result = _result(trainer)
        _log_summary(result, options, launcher)
        group.wait()  # a launcher ends the others as soon as one process has left
        return result


def _enter(stack: contextlib.ExitStack, context: contextlib.AbstractContextManager) -> None:
    stack.enter_context(context)


def _check_pretrained(options: Options, experiment: Experiment, overwrite: bool) -> None:
    """Raise an error about `path.pretrain_network_g` before a folder is made, or renamed."""
    given = options.path.pretrain_network_g
    if given is None:
        return
    path = user_path(given)
    if overwrite and experiment.folder.resolve() in path.resolve().parents:
        raise OptionError(f"path.pretrain_network_g: {path} lies in the folder that --overwrite renames. Give the new "
                          "run another name instead: --set name=...")
    if not path.is_file():
        read_weights(path)  # says what is there instead


def _prepare(experiment: Experiment, options: Options, resume: str | None, overwrite: bool, *, plan: Sequence[Stage],
             data: DataModule, processes: int) -> Path | None:
    """Make the folder ready; return the path of the state to resume, or None."""
    if resume is not None:
        path, state = experiment.find_state(resume)
        if path is not None and state is not None:
            check_same_run(state, options, path, plan=plan, processes=processes, data=data.hashes())
            experiment.clean()
            if resume != "auto":
                experiment.put_newer_aside(state["iteration"])
            experiment.write_options(options)
            return path
        logger.info("no state to resume in %s: starting from the beginning", experiment.states)
    # Weights without a state: the run was killed during its very first save. They are kept aside.
    experiment.start(options, overwrite=overwrite or resume == "auto")
    return None


def _log_file(experiment: Experiment) -> contextlib.AbstractContextManager:
    try:
        return logging_to(logging.FileHandler(experiment.log, encoding="utf-8"))
    except OSError as error:
        raise storage_error(experiment.log, error) from error


@contextlib.contextmanager
def _settings(options: Options, device: torch.device) -> Iterator[None]:
    """Torch's global settings for training, and those of before afterwards, random generators included."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic   # its property is not declared
    fill = memory.fill_uninitialized_memory
    with randomness.preserved(device):
        try:
            if options.num_threads is not None:
                torch.set_num_threads(options.num_threads)
            if device.type == "cpu":
                # Costs nothing there, once fresh memory need not be filled.
                torch.use_deterministic_algorithms(True, warn_only=True)
                memory.fill_uninitialized_memory = False
            else:
                torch.backends.cudnn.benchmark = True  # crops have one size
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = cudnn
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill


def _announce(trainer: Trainer, path: Path | None) -> None:
    options, group = trainer.options, trainer.group
    logger.info("%s: options %s of %s; %s, %d process%s, torch %s; results go to %s", options.name,
                options.hash(), options.source() or "a mapping", group.device, group.size,
                "es" if group.size > 1 else "", torch.__version__, trainer.experiment.folder)
    for line in options.differences():
        logger.info("changed from the recipe: %s", line)
    if path is not None:
        logger.info("resuming from %s", path)


def _result(trainer: Trainer) -> TrainingResult:
    experiment = trainer.experiment
    weights = [p if p.exists() else None for p in (experiment.best_weights, experiment.last_weights)]
    return TrainingResult(
        folder=experiment.folder, finished=trainer.finished, stopped_by=int(trainer.stopping),
        iterations=trainer.iteration, samples_seen=trainer.samples_seen, seconds=trainer.seconds,
        best=trainer.best, scores=trainer.latest_scores(), best_weights=weights[0],
        last_weights=weights[1], history=trainer.history)


def _log_summary(result: TrainingResult, options: Options, launcher: str) -> None:
    """Log what was reached, and the next step."""
    # What `--set` changed is in the stored options, so those are the ones to go on with.
    plain = options.source() is not None and not options.differences()
    recipe = shlex.quote(str(options.source() if plain else result.folder / "options.yml"))
    if not result.finished:
        more = "" if launcher == "none" else f" --launcher {launcher}"
        logger.info("stopped after iteration %s; everything is saved. Go on with:\n"
                    "  %s -opt %s --resume auto%s", f"{result.iterations:,}", command_line("train"), recipe, more)
        return
    logger.info("finished: %s iterations, %s samples, %.0f s in training steps", f"{result.iterations:,}",
                f"{result.samples_seen:,}", result.seconds)
    if result.best is not None:
        logger.info("best at iteration %s: %s (%s)", f"{result.best['iteration']:,}",
                    show_scores(result.best["scores"]), result.best_weights)
    logger.info("next: %s -opt %s", command_line("test"), recipe)
