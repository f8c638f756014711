"""Norms that keep running statistics: which of them stand still, and how processes share their statistics.

One place knows them all: torch's batch norms, classes derived from them (DDDNet's, SFNet's), and norms of one's own
that keep `running_mean` (DMENet's `OffsetNorm`).
"""
import fnmatch
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_statistics(module: nn.Module) -> bool:
    """Return whether a module is a norm with running statistics."""
    return module._buffers.get("running_mean") is not None


def still_modules(module: nn.Module) -> list[nn.Module]:
    """Return the parts that a network froze itself, before it is trained: they stay in evaluation mode.

    These are parts that it put in evaluation mode, and norms whose weights it does not train: statistics that move
    would change what is frozen. A network that is in evaluation mode as a whole says nothing by it.
    """
    found = []
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        frozen = has_statistics(part) and own and not any(parameter.requires_grad for parameter in own)
        if frozen or (module.training and not part.training):
            found.append(part)
    return found


def norms_without_match(module: nn.Module, prefix: str, patterns: Sequence[str]) -> list[nn.Module]:
    """Return the norms whose statistics none of the `patterns` trains.

    Args:
        prefix: put before the names of the module's parts ("reblur." or nothing).
    """
    return [part for name, part in module.named_modules(prefix=prefix.rstrip("."))
            if has_statistics(part) and not any(
                fnmatch.fnmatchcase(f"{name}.running_mean", pattern) for pattern in patterns)]


def synchronize_norms(module: nn.Module) -> nn.Module:
    """Let all norms with running statistics compute them over the samples of all processes; return `module`.

    The norms stay the objects that they are, with all that they know of themselves; only how they compute
    statistics in training changes. Instance norms see one sample at a time and stay as they are.

    Raises:
        TypeError: a norm keeps statistics in a way that is not known here.
    """
    for part in module.modules():
        if not has_statistics(part) or isinstance(part, (nn.SyncBatchNorm, SharedMoments, _INSTANCE)):
            continue
        if isinstance(part, _BatchNorm):
            # torch's own conversion makes new modules, which forget what a derived class knows. In the order of
            # bases here, SyncBatchNorm's forward stands in for that of the batch norm.
            part.__class__ = _derived(type(part), nn.SyncBatchNorm, after=True)
            cast("nn.SyncBatchNorm", part).process_group = None
        elif hasattr(part, "moments"):
            part.__class__ = _derived(type(part), SharedMoments, after=False)
        else:
            raise TypeError(f"{type(part).__name__} keeps running statistics, but it is no batch norm and has no "
                            "`moments(x) -> (variance, mean)`, so processes cannot share them")
    return module


_INSTANCE = nn.modules.instancenorm._InstanceNorm


class _HasMoments(Protocol):
    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


class SharedMoments:
    """Mixed into a norm with `moments`: mean and variance over the samples of all processes."""

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) -> the biased variance and the mean of each channel, over all processes; differentiable."""
        variance, mean = cast("_HasMoments", super()).moments(x)
        count = torch.full_like(mean[:1], x.numel() / x.shape[1])
        total = _AllReduce.apply(torch.cat([mean * count, count]))
        common = total[:-1] / total[-1]
        # In two steps, since E[x^2] - E[x]^2 loses digits.
        spread = _AllReduce.apply((variance + (mean - common).square()) * count)
        return spread / total[-1], common


class _AllReduce(torch.autograd.Function):
    """Sum over processes; the gradient is summed, too, as each process's loss depends on all."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def _derived(cls: type, base: type, *, after: bool) -> type:
    """Return a class of both, the same one each time; `after` puts `base` behind `cls` in the order of bases."""
    key = (cls, base)
    if key not in _classes:
        _classes[key] = type(f"Synchronized{cls.__name__}", (cls, base) if after else (base, cls), {})
    return _classes[key]


_classes: dict[tuple[type, type], type] = {}
