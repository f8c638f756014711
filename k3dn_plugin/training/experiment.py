"""The folder of a run: what lies where, starting fresh, going on."""
import contextlib
import copy
import datetime
import json
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.files import FolderLock, atomic_write, storage_error, user_path
from k3dn_plugin.options import Options, differences
from k3dn_plugin.training.stages import Stage, share_stage
from k3dn_plugin.training.state import load_state, newest_state, state_files

logger = logging.getLogger("k3dn_plugin.training")

# Keys of `datasets.train` that change how fast samples come, not which.
LOADING_KEYS = ("num_worker_per_gpu", "prefetch_factor", "pin_memory")


class Experiment:
    """`experiments/<name>/`: options.yml, options_diff.txt, train.log, metrics.csv, tb/, models/, states/,
    pictures/.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.states = self.folder / "states"
        self.models = self.folder / "models"
        self.pictures = self.folder / "pictures"
        self.working = self.pictures / ".working"
        self.tensorboard = self.folder / "tb"
        self.metrics = self.folder / "metrics.csv"
        self.log = self.folder / "train.log"
        self.best_weights = self.models / "best.safetensors"
        self.last_weights = self.models / "last.safetensors"

    @classmethod
    def of(cls, options: Options) -> "Experiment":
        """The folder that `options` name."""
        return cls(user_path(options.path.experiments_root) / options.name)

    def lock(self) -> FolderLock:
        """Own the folder for as long as the context lasts.

        Raises:
            StorageError: another process trains here; the message names it.
        """
        # Beside the folder, which --overwrite renames.
        return FolderLock(self.folder, "training", beside=True)

    def is_used(self) -> bool:
        """Whether a run has left results here."""
        return bool(state_files(self.states)) or self.last_weights.exists() or self.best_weights.exists()

    def start(self, options: Options, *, overwrite: bool = False) -> None:
        """Prepare the folder for a fresh run.

        Raises:
            OptionError: a run lies there already and `overwrite` is false.
            StorageError: the folder cannot be written.
        """
        if self.is_used():
            if not overwrite:
                raise OptionError(
                    f"{self.folder} already holds a run, which a new one would overwrite. Continue it with "
                    "--resume auto, or start another under a new name (--set name=...), or give "
                    "--overwrite, which keeps the old folder under a name with the time")
            self.clean()
            self.archive()
        self.clean()
        for old in (self.metrics, self.log):
            old.unlink(missing_ok=True)
        self.write_options(options)

    def archive(self) -> None:
        """Rename the folder, with the time in its new name."""
        archived = _unused(self.folder.with_name(f"{self.folder.name}_archived_{_moment()}"))
        try:
            self.folder.rename(archived)
        except OSError as error:
            raise storage_error(archived, error) from error
        logger.info("the folder of an earlier run is now %s", archived)

    def put_newer_aside(self, iteration: int) -> None:
        """Move the states behind `iteration` to a folder of their own, since the run goes on from there.

        Left where they are they would count as the newest ones, and what is saved next as the oldest.
        """
        newer = [path for path in state_files(self.states) if int(path.stem) > iteration]
        if not newer:
            return
        aside = _unused(self.states / f"newer_{_moment()}")
        try:
            aside.mkdir()
            for path in newer:
                path.rename(aside / path.name)
        except OSError as error:
            raise storage_error(aside, error) from error
        logger.info("%d newer states are now in %s", len(newer), aside)

    def clean(self) -> None:
        """Create the folders and remove what an interrupted write left (`.x.part`)."""
        try:
            for folder in (self.folder, self.states, self.models, self.pictures):
                folder.mkdir(parents=True, exist_ok=True)
                for leftover in folder.glob(".*.part"):
                    leftover.unlink(missing_ok=True)
            shutil.rmtree(self.working, ignore_errors=True)
        except OSError as error:
            raise storage_error(self.folder / "options.yml", error) from error

    def find_state(self, resume: str) -> tuple[Path | None, dict[str, Any] | None]:
        """`(path, state)` for `--resume`: "auto", a state file, or the folder of a run; maybe (None, None).

        Raises:
            CheckpointError: the file is missing or damaged; with "auto", all states are.
        """
        if resume == "auto":
            return newest_state(self.states, logger.warning)
        path = user_path(resume)
        if path.is_dir():
            folder = path / "states" if (path / "states").is_dir() else path
            found = newest_state(folder, logger.warning)
            if found[0] is None:
                raise CheckpointError(f"--resume {resume}: no training state lies in {folder}. Give a state file or "
                                      "the folder of a run; --resume auto starts afresh where there is none")
            return found
        return path, load_state(path)

    def write_options(self, options: Options) -> None:
        """Store the resolved options, their hash, and how they differ from the recipe."""
        source = options.source()
        plain = json.loads(json.dumps(options.as_dict()))
        head = f"# resolved options of {source or 'a mapping'}, hash {options.hash()}\n"
        _write_text(self.folder / "options.yml", head + yaml.safe_dump(plain, sort_keys=False))
        changed = options.differences()
        _write_text(self.folder / "options_diff.txt",
                    f"recipe: {source}\nhash: {options.hash()}\n"
                    + "\n".join(changed or ["no difference from the recipe"]) + "\n")


def check_same_run(state: dict, options: Options, path: Path, *, plan: Sequence[Stage], processes: int,
                   data: Sequence[str]) -> None:
    """Raise `CheckpointError` unless this would continue the very run that `state` belongs to.

    A finished run may go on for longer: then only the length differs, and its last stage continues. Another number of
    processes may go on where they see the same batches, as `train.global_batch` and phases state them.

    Args:
        path: of the state, for messages.
        data: hashes of the stages' training data.
    """
    if state["world_size"] != processes and not _same_batches(plan, state["world_size"], processes):
        raise CheckpointError(f"{path} was saved by {state['world_size']} processes, this run has "
                              f"{processes}: it would see other batches. Start as many as before. (A recipe with "
                              "train.global_batch sees the same ones with any number that divides it.)")
    then, now = (_decisive(o) for o in (state["options"], json.loads(json.dumps(options.as_dict()))))
    finished = state["iteration"] == then["train"]["total_iter"]
    changed = differences(then, _shortened(now, then) if finished else now)
    changed += [f"data of stage {stage.name!r} at the same place: {before} -> {after}"
                for stage, before, after in zip(plan, state.get("data", ()), data, strict=False)
                if before != after and not (before + after).count("?")]
    if changed:
        longer = "" if finished or then["train"]["total_iter"] >= now["train"]["total_iter"] else (
            f" (A run can be made longer once its {then['train']['total_iter']:,} iterations are done.)")
        stored, weights = (shlex.quote(str(path.parent.parent / name))
                           for name in ("options.yml", "models/last.safetensors"))
        raise CheckpointError(
            f"{path} belongs to a run with other options or data, so going on would be neither the one nor the "
            "other:\n  " + "\n  ".join(changed) + f"\nGo on with what the run was started with (-opt {stored} "
            f"--resume auto), or start another from its weights: --set name=... path.pretrain_network_g="
            f"{weights}{longer}")
    stage = plan[state["stage"]] if state["stage"] < len(plan) else None
    if stage is None or not stage.start < state["iteration"] <= stage.end:
        raise CheckpointError(f"{path} claims iteration {state['iteration']:,} in stage {state['stage'] + 1}, which "
                              "does not fit its own options: it is damaged. Resume from an older state")
    if state["world_size"] != processes:
        logger.warning("saved by %d process(es), going on with %d: each iteration sees the samples that it would have "
                       "seen. Not bit-identical to an unbroken run: gradients are summed in another order; random "
                       "draws of the network (dropout) start anew from seed, iteration and process; batch norm on the "
                       "CPU has the statistics of each process's share", state["world_size"], processes)


def _same_batches(plan: Sequence[Stage], before: int, now: int) -> bool:
    """Whether each iteration of each stage sees as many samples on either number of processes."""
    return all([phase.global_batch for phase in share_stage(stage, before)]
               == [phase.global_batch for phase in share_stage(stage, now)] for stage in plan)


def _shortened(now: dict, then: dict) -> dict:
    """`now` with the length of `then`, where it is longer: the run's, its last stage's and its last phase's."""
    now = copy.deepcopy(now)
    pairs = [(now["train"], then["train"])]
    stages = (now["train"].get("stages"), then["train"].get("stages"))
    if all(stages) and len(stages[0]) == len(stages[1]):
        pairs.append((stages[0][-1], stages[1][-1]))
    for longer, shorter in pairs:
        if longer["total_iter"] > shorter["total_iter"]:
            longer["total_iter"] = shorter["total_iter"]
            phases = (longer.get("phases"), shorter.get("phases"))
            if all(phases) and phases[0][-1]["iterations"] > phases[1][-1]["iterations"]:
                longer["phases"][-1]["iterations"] = shorter["phases"][-1]["iterations"]
    return now


def _moment() -> str:
    return datetime.datetime.now().strftime("%Y%m%d_%H%M%S")


def _unused(path: Path) -> Path:
    """Return `path`, with a number behind it where something of that name is there already."""
    found, number = path, 2
    while os.path.lexists(found):
        found, number = path.with_name(f"{path.name}_{number}"), number + 1
    return found


def _decisive(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what a run computes."""
    train = dict((options["datasets"] or {}).get("train") or {})
    for key in LOADING_KEYS:
        train.pop(key, None)
    return {"network_g": options["network_g"], "datasets": {"train": train}, "train": options["train"],
            "manual_seed": options["manual_seed"]}


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)


@contextlib.contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Let the training logger write to `handler` alone, or also, while the context lasts."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
        logger.propagate = propagate
