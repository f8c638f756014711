"""A restorer and a data set small enough to train in a test; a `custom_imports` module of its recipes.

Environment variables, for tests that run training in a process of its own:
    TINY_READS      file to which every sample read is appended, as `process epoch index`
    TINY_KILL       where the process kills itself with SIGKILL: `forward:7` (before its 7th training forward
                    pass), `write:3` (half through its 3rd flush of a file), `replace:3` (after its 3rd
                    rename of a finished file)
    TINY_FULL_DISK  the number of the flush that finds the disk full
    TINY_SIGNAL     `15:7`: send itself that signal before the 7th training forward pass
"""
import errno
import os
import signal

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.data.sample import SampleIndex
from k3dn_plugin.registry import ARCHS, DATASETS, LOSSES

_counts = {}


def _count(what):
    _counts[what] = _counts.get(what, 0) + 1
    return _counts[what]


def _reached(variable, what):
    kind, _, number = os.environ.get(variable, "").partition(":")
    return kind == what and _count(variable + what) == int(number)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


@ARCHS.register_module(force=True)
class TinyRestorer(Restorer):
    """Two convolutions with what makes resuming hard: batch norm and dropout."""

    card = RestorerCard(title="Tiny", paper="none", year=2026, venue="none", official_licence="none")

    def __init__(self, *, width: int = 4, dropout: float = 0.1, norm: bool = True, refine: bool = False,
                 explode_after: int | None = None):
        super().__init__()
        self.first = nn.Conv2d(6, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.refine = nn.Conv2d(3, 3, 1) if refine else None
        self.register_buffer("table", torch.tensor([7, 1]))
        self.explode_after = explode_after

    def restore(self, views):
        if self.training:
            if _reached("TINY_KILL", "forward"):
                _die()
            number, _, at = os.environ.get("TINY_SIGNAL", "0:0").partition(":")
            if _count("signal") == int(at):
                os.kill(os.getpid(), int(number))
        hidden = self.dropout(torch.relu(self.norm(self.first(views))))
        image = self.last(hidden) + (views[:, :3] + views[:, 3:6]) / 2
        if self.refine is not None:
            image = image + self.refine(image)
        if self.explode_after is not None and self.training and _count("explode") > self.explode_after:
            image = image * float("nan")
        return image


@DATASETS.register_module(force=True)
class TinyPairs(Dataset):
    """Random smooth pairs; a sample depends on (seed, epoch, index) alone."""

    def __init__(self, *, length: int = 10, size: int = 8, seed: int = 0, root: str | None = None):
        from k3dn_plugin.errors import DataError
        if root is not None and not os.path.isdir(root):
            raise DataError(f"no data in {root}: prepare it, or run the demo")
        self.length, self.size, self.seed = length, size, seed

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        epoch, index = index if isinstance(index, SampleIndex) else (0, index)
        if "TINY_READS" in os.environ:
            with open(os.environ["TINY_READS"], "a") as file:
                file.write(f"{os.getpid()} {epoch} {index}\n")
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, index])))
        gt = torch.from_numpy(draw.random((3, self.size, self.size), dtype=np.float32))
        left, right = gt.roll(1, -1), gt.roll(-1, -1)
        return {"lq": torch.cat([left, right]), "center": (left + right) / 2, "gt": gt,
                "name": f"tiny_{index:02d}"}


@LOSSES.register_module(force=True)
class RootLoss(nn.Module):
    """A loss whose gradient is not finite where the restored image is right."""

    def __init__(self, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, prediction, batch):
        return self.weight * (prediction["restored"] * 0).abs().sqrt().mean()


def _watch_files():
    """Let TINY_KILL and TINY_FULL_DISK act on the flush and the rename of every file written aside."""
    flush, rename = os.fsync, os.replace

    def fsync(handle):
        number = _count("flush") if not os.path.isdir(f"/proc/self/fd/{handle}") else 0
        if os.environ.get("TINY_KILL") == f"write:{number}":
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            _die()
        if os.environ.get("TINY_FULL_DISK") == str(number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    def replace(source, target):
        rename(source, target)
        if _reached("TINY_KILL", "replace"):
            _die()

    os.fsync, os.replace = fsync, replace


if "TINY_KILL" in os.environ or "TINY_FULL_DISK" in os.environ:
    _watch_files()
