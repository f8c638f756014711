"""What one training step computes, as one module: restorer, reblur module, losses.

One module, so that `DistributedDataParallel` and `torch.compile` wrap it once.
"""
import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import near
from k3dn_plugin.training.norms import norms_without_match, still_modules

REBLUR_PREFIX = "reblur."


class TrainingGraph(nn.Module):
    """Batch in, losses out.

    Args:
        restorer: the network that is trained.
        losses: loss modules by name.
        reblur: a reblur module that is trained beside the restorer and thrown away afterwards, or None.
        trainable: shell-style patterns of the parameters that are trained (`srp.*`), the reblur module's
            under `reblur.`; None trains all. The others are frozen, and norms without a match keep their
            statistics, as in evaluation. What a network froze itself stays frozen.

    Raises:
        OptionError: a pattern matches no parameter.
    """

    restorer: Restorer

    def __init__(self, restorer: Restorer, *, losses: dict[str, nn.Module], reblur: nn.Module | None = None,
                 trainable: list[str] | None = None):
        super().__init__()
        self.restorer = restorer
        self.reblur = reblur
        self.losses = nn.ModuleDict(losses).requires_grad_(False)
        self._still = [part for whole in (restorer, reblur) if whole is not None for part in still_modules(whole)]
        if trainable is not None:
            self._freeze(trainable)

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        """Return weighted losses by name for a batch of tensors (`name` taken out).

        The losses are computed inside, not by the loop, because DDP waits for the gradient of every
        output that it sees, and a prediction may hold some that no loss of the recipe reads.
        """
        prediction = self.predict(batch)
        with torch.autocast(batch["gt"].device.type, enabled=False):
            prediction = in_float32(prediction)
            return {name: loss(prediction, batch) for name, loss in self.losses.items()}

    def predict(self, batch: dict) -> dict:
        """Return the restorer's training outputs, with `reblurred` where a reblur module is trained."""
        prediction = self.restorer.training_outputs(batch)
        if self.reblur is not None:
            guidance = ReblurGuidance(batch=batch, prediction=prediction, restorer=self.restorer)
            prediction["reblurred"] = self.reblur(batch["gt"], guidance)
        return prediction

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters for the optimizer."""
        return [p for p in self.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> "TrainingGraph":
        """Set the mode of all parts but the frozen norms, and what the network froze itself."""
        super().train(mode)
        for part in self._still:
            part.train(False)
        return self

    def _freeze(self, patterns: Sequence[str]) -> None:
        names = graph_names(self.restorer, self.reblur)
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise OptionError(f"trainable: {pattern!r} matches no parameter of "
                                  f"{type(self.restorer).__name__}.{near(pattern, names)} "
                                  f"Parameters are called like {', '.join(list(names)[:3])}")
        for name, parameter in _parameters(self.restorer, self.reblur):
            if not matches(name, patterns):
                parameter.requires_grad_(False)
        self._still += norms_without_match(self.restorer, "", patterns)
        if self.reblur is not None:
            self._still += norms_without_match(self.reblur, REBLUR_PREFIX, patterns)


def parameters_behind(loss: torch.Tensor) -> set[torch.Tensor]:
    """Return the parameters that would get a gradient from `loss`."""
    found, seen, todo = set(), set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # of the nodes that gather a leaf's gradient
        if variable is not None:
            found.add(variable)
        todo += [function for function, _ in node.next_functions]
    return found


def matches(name: str, patterns: Sequence[str] | None) -> bool:
    """Whether `patterns` (None: everything) train what is called `name`."""
    return patterns is None or any(fnmatch.fnmatchcase(name, p) for p in patterns)


def graph_names(restorer: nn.Module, reblur: nn.Module | None) -> dict[str, None]:
    """Return state-dict keys of the restorer, then those of the reblur module under `reblur.`."""
    names = dict.fromkeys(restorer.state_dict())
    if reblur is not None:
        names.update(dict.fromkeys(REBLUR_PREFIX + key for key in reblur.state_dict()))
    return names


def _parameters(restorer: nn.Module, reblur: nn.Module | None) -> Iterator[tuple[str, nn.Parameter]]:
    yield from restorer.named_parameters()
    if reblur is not None:
        yield from ((REBLUR_PREFIX + name, p) for name, p in reblur.named_parameters())


def in_float32(value: Any) -> Any:
    """Return half-precision tensors inside dictionaries, sequences and dataclasses as float32."""
    if torch.is_tensor(value):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, dict):
        return {key: in_float32(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(in_float32(v) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: in_float32(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value
