"""The folder of a run: what lies where, starting fresh, going on."""
import contextlib
import datetime
import json
import logging
import shutil
from pathlib import Path

import yaml

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.files import atomic_write, storage_error
from k3dn_plugin.options import differences
from k3dn_plugin.training.state import load_state, newest_state, state_files

logger = logging.getLogger("k3dn_plugin.training")

# Keys of `datasets.train` that change how fast samples come, not which.
LOADING_KEYS = ("num_worker_per_gpu", "prefetch_factor", "pin_memory")


class Experiment:
    """`experiments/<name>/`: options.yml, options_diff.txt, train.log, metrics.csv, tb/, models/, states/,
    pictures/."""

    def __init__(self, folder):
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
    def of(cls, options):
        """The folder that `options` name."""
        return cls(Path(options.path.experiments_root) / options.name)

    def is_used(self):
        """Whether a run has left results here."""
        return bool(state_files(self.states)) or self.last_weights.exists() or self.best_weights.exists()

    def start(self, options, *, overwrite=False):
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

    def archive(self):
        """Rename the folder, with the time in its new name."""
        moment = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
        archived = self.folder.with_name(f"{self.folder.name}_archived_{moment}")
        self.folder.rename(archived)
        logger.info("the folder of an earlier run is now %s", archived)

    def clean(self):
        """Create the folders and remove what an interrupted write left (`.x.part`)."""
        try:
            for folder in (self.folder, self.states, self.models, self.pictures):
                folder.mkdir(parents=True, exist_ok=True)
                for leftover in folder.glob(".*.part"):
                    leftover.unlink(missing_ok=True)
            shutil.rmtree(self.working, ignore_errors=True)
        except OSError as error:
            raise storage_error(self.folder / "options.yml", error) from error

    def find_state(self, resume):
        """`(path, state)` for `--resume`: "auto", a state file, or the folder of a run; maybe (None, None).

        Raises:
            CheckpointError: the file is missing or damaged; with "auto", all states are.
        """
        if resume == "auto":
            return newest_state(self.states, logger.warning)
        path = Path(resume)
        if path.is_dir():
            folder = path / "states" if (path / "states").is_dir() else path
            found = newest_state(folder, logger.warning)
            if found[0] is None:
                raise CheckpointError(f"--resume {resume}: no training state lies in {folder}")
            return found
        return path, load_state(path)

    def write_options(self, options):
        """Store the resolved options, their hash, and how they differ from the recipe."""
        source = options.source()
        plain = json.loads(json.dumps(options.as_dict()))
        head = f"# resolved options of {source or 'a mapping'}, hash {options.hash()}\n"
        _write_text(self.folder / "options.yml", head + yaml.safe_dump(plain, sort_keys=False))
        changed = options.differences()
        _write_text(self.folder / "options_diff.txt",
                    f"recipe: {source}\nhash: {options.hash()}\n"
                    + "\n".join(changed or ["no difference from the recipe"]) + "\n")


def check_same_run(state, options, path, world_size):
    """Raise `CheckpointError` unless this would continue the very run that `state` belongs to."""
    if state["world_size"] != world_size:
        raise CheckpointError(f"{path} was saved by {state['world_size']} processes, this run has "
                              f"{world_size}: it would see other batches. Start as many as before")
    then, now = (_decisive(o) for o in (state["options"], json.loads(json.dumps(options.as_dict()))))
    changed = differences(then, now)
    if changed:
        raise CheckpointError(
            f"{path} belongs to a run with other options, so going on would be neither the one nor the "
            "other:\n  " + "\n  ".join(changed) + "\nResume with the options of the run "
            "(its options.yml), or start a new one: --set name=... path.pretrain_network_g=<its "
            "models/last.safetensors>")


def _decisive(options):
    """The options that decide what a run computes."""
    train = dict((options["datasets"] or {}).get("train") or {})
    for key in LOADING_KEYS:
        train.pop(key, None)
    return {"network_g": options["network_g"], "datasets": {"train": train}, "train": options["train"],
            "manual_seed": options["manual_seed"]}


def _write_text(path, text):
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)


@contextlib.contextmanager
def logging_to(handler):
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
