"""A restorer and a data set small enough to train in a test; a `custom_imports` module of its recipes.

Environment variables, for tests that run training in a process of its own:
    TINY_READS      file to which every sample read is appended, as `seed epoch index`
    TINY_KILL       where the process kills itself with SIGKILL: `forward:7` (before its 7th training forward
                    pass), `write:.state:3` (half through writing its 3rd file with ".state" in the name),
                    `replace:.state:3` (when that file has just been given its name)
    TINY_FULL_DISK  `.state:3`: the file that finds the disk full
    TINY_SIGNAL     `15:7`: send itself that signal before the 7th training forward pass
    TINY_SLOW       seconds that every training forward pass takes longer
"""
import errno
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.data.sample import SampleIndex
from k3dn_plugin.registry import ARCHS, DATASETS, LOSSES

_counts = {}


def _reached(variable, what, step):
    """Whether the environment's `variable` is `what:<n>` and this is the n-th call for it; `step` counts."""
    wanted, _, number = os.environ.get(variable, "").rpartition(":")
    if not wanted or wanted != what:
        return False
    _counts[variable, step] = _counts.get((variable, step), 0) + 1
    return _counts[variable, step] == int(number)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


@ARCHS.register_module()
class TinyRestorer(Restorer):
    """Two convolutions with what makes resuming hard: batch norm and dropout."""

    card = RestorerCard(title="Tiny", paper="none", year=2026, venue="none", official_license="none",
                        receptive_margin=2)

    def __init__(self, *, width: int = 4, dropout: float = 0.1, norm: bool = True, refine: bool = False,
                 volume: bool = False, explode_after: int | None = None):
        super().__init__()
        self.first = nn.Conv2d(6, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.refine = nn.Conv2d(3, 3, 1) if refine else None
        self.volume = nn.Conv3d(6, 6, 3, padding=1) if volume else None
        self.register_buffer("table", torch.tensor([7, 1]))
        self.explode_after = explode_after
        self.calls = 0

    def restore(self, views):
        if self.training:
            self.calls += 1
            time.sleep(float(os.environ.get("TINY_SLOW", 0)))
            if _reached("TINY_KILL", "forward", "forward"):
                _die()
            number = os.environ.get("TINY_SIGNAL", "").partition(":")[0]
            if _reached("TINY_SIGNAL", number, "forward"):
                os.kill(os.getpid(), int(number))
        if self.volume is not None:
            views = views + self.volume(views[:, :, None].expand(-1, -1, 4, -1, -1)).mean(2)
        hidden = self.dropout(torch.relu(self.norm(self.first(views))))
        image = self.last(hidden) + (views[:, :3] + views[:, 3:6]) / 2
        self.half = image
        if self.refine is not None:
            image = image + self.refine(image)
        if self.explode_after is not None and self.training and self.calls > self.explode_after:
            image = image * float("nan")
        return image


    def training_outputs(self, batch):
        """`restored`, and `half`, in which the last part has no share."""
        restored = self(batch["lq"], batch.get("center"))
        return {"restored": restored, "half": self.half} if self.refine is not None else {"restored": restored}


@DATASETS.register_module()
class TinyPairs(Dataset):
    """Random smooth pairs; a sample depends on (seed, epoch, index) alone."""

    def __init__(self, *, length: int = 10, size: int = 8, seed: int = 0, root: str | None = None):
        from k3dn_plugin.errors import DataError
        if root is not None and not os.path.isdir(root):
            raise DataError(f"no data in {root}: prepare it, or run the demo")
        self.length, self.size, self.seed = length, size, seed

    def __len__(self):
        return self.length

    def fingerprint(self):
        return ["TinyPairs", self.length, self.size, self.seed]

    def __getitem__(self, index):
        epoch, index = (index.epoch, index.index) if isinstance(index, SampleIndex) else (0, index)
        if "TINY_READS" in os.environ:
            with open(os.environ["TINY_READS"], "a") as file:
                file.write(f"{self.seed} {epoch} {index}\n")
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, index])))
        gt = torch.from_numpy(draw.random((3, self.size, self.size), dtype=np.float32))
        left, right = gt.roll(1, -1), gt.roll(-1, -1)
        return {"lq": torch.cat([left, right]), "center": (left + right) / 2, "gt": gt,
                "name": f"tiny_{index:02d}"}


@LOSSES.register_module()
class RootLoss(nn.Module):
    """A loss whose gradient is not finite where the restored image is right."""

    def __init__(self, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, prediction, batch):
        return self.weight * (prediction["restored"] * 0).abs().sqrt().mean()


def _watch_files():
    """Let TINY_KILL and TINY_FULL_DISK act on files that are written aside and renamed."""
    make, flush, rename = tempfile.mkstemp, os.fsync, os.replace
    name = [""]

    def mkstemp(*arguments, **named):
        handle, name[0] = make(*arguments, **named)
        return handle, name[0]

    def matching(variable, step):
        wanted = os.environ.get(variable, "").rpartition(":")[0]
        part = wanted.partition(":")[2] if variable == "TINY_KILL" else wanted
        return (wanted.startswith(step) and part and part in os.path.basename(name[0])
                and _reached(variable, wanted, step))

    def fsync(handle):
        if os.path.exists(name[0]):
            if matching("TINY_KILL", "write"):
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                _die()
            if matching("TINY_FULL_DISK", ""):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    def replace(source, target):
        rename(source, target)
        if matching("TINY_KILL", "replace"):
            _die()

    tempfile.mkstemp, os.fsync, os.replace = mkstemp, fsync, replace


def _tell_of_processes():
    """Print how DDP is set up, and how often the loop itself makes the processes wait for each other."""
    from k3dn_plugin.training import distributed, trainer
    made, gather = distributed.DistributedDataParallel, distributed.dist.all_gather
    step, count = trainer.Trainer._step, [0, 0]

    def parallel(*arguments, **named):
        print(f"find_unused_parameters={named['find_unused_parameters']}", flush=True)
        return made(*arguments, **named)

    def all_gather(*arguments, **named):
        count[0] += 1
        return gather(*arguments, **named)

    def refuse(*arguments, **named):
        raise AssertionError("another collective within a step")

    def counted(self, batches):
        names = ("all_reduce", "broadcast", "all_gather_object", "broadcast_object_list", "barrier")
        kept = {name: getattr(distributed.dist, name) for name in names}
        for name in names:
            setattr(distributed.dist, name, refuse)
        try:
            step(self, batches)
        finally:
            for name, function in kept.items():
                setattr(distributed.dist, name, function)
        count[1] += 1
        print(f"collectives of the loop: {count[0]} in {count[1]} iterations", flush=True)

    distributed.DistributedDataParallel, distributed.dist.all_gather = parallel, all_gather
    trainer.Trainer._step = counted


def train_in_child(arguments, variables, output):
    """tools/train.py with `variables` in the environment; what it prints goes to the file `output`."""
    os.environ.update(variables)
    # As in a terminal: a test run under nohup would hand its deaf ear for SIGHUP on.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    _watch_files()
    if "TINY_TELL_DDP" in os.environ:
        _tell_of_processes()
    # As in a program started by hand; a fork server of this process would outlive its being killed.
    multiprocessing.set_start_method("fork", force=True)
    tool = Path(__file__).parents[2] / "tools" / "train.py"
    sys.argv = [str(tool), *arguments]
    runpy.run_path(str(tool), run_name="__main__")
