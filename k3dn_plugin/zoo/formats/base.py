"""How a published network's files map onto ours: one subclass a family, in `zoo/formats/<family>.py`.

The same mapping loads official checkpoints and the manifests of the parity check, so that a passed
check says something about the checkpoint too.
"""
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import ARCHS, FORMATS
from k3dn_plugin.zoo.formats.key_map import KeyMap


def official_format(network: str) -> "OfficialNetwork":
    """Return an instance of the format for a manifest's `arch`.

    Raises:
        CheckpointError: no format has that name.
    """
    if network not in FORMATS:
        raise CheckpointError(f"no official format is known for the network {network!r}; "
                              f"known: {', '.join(FORMATS.names())}")
    return FORMATS.get(network)()


class OfficialNetwork(ABC):
    """A published network: how its settings, keys, layouts and calls become ours.

    Attributes:
        networks: names under which manifests know it ("k3dn", "k3dn_base").
        arch: the registered restorer that it becomes.
        keys: the official names of tensors and ours, where one table says it all.
    """

    networks: tuple[str, ...] = ()
    arch: str = ""
    keys: KeyMap = KeyMap({})

    @abstractmethod
    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments of `arch` for the official settings."""

    def arch_of(self, network: str) -> str:
        """Return the registered restorer of one of the networks, where they differ; `arch` otherwise."""
        return self.arch

    def build(self, settings: Mapping[str, Any], network: str) -> torch.nn.Module:
        """Return our network with those settings, in evaluation mode."""
        return ARCHS.build({"type": self.arch_of(network), **self.arguments(settings, network)}).eval()

    def rename(self, key: str) -> str:
        """Return our state-dict key for an official one; a key that is not the network's may stay as it is."""
        return self.keys.ours(key)

    def to_official(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """Return the official state dict for ours (formats of other frameworks and shapes override)."""
        return {self.keys.official(key): value for key, value in state.items()}

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return our state dict from official tensors (PyTorch layouts; formats of other frameworks override)."""
        return {self.rename(key): torch.as_tensor(np.array(value, order="C"))
                for key, value in tensors.items()}

    def load(self, model: torch.nn.Module, tensors: Mapping[str, np.ndarray], network: str) -> None:
        """Load official tensors strictly.

        Raises:
            CheckpointError: keys are missing or left over, or a shape differs.
        """
        load_strictly(model, self.convert(tensors, network), source=f"official {network} weights")

    @abstractmethod
    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        """Return the named outputs of the official call for the official inputs (PyTorch layouts both ways)."""


def check_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Check that a state dict fits, with an error that a reader can act on.

    Raises:
        CheckpointError: names the first missing, unexpected and misshapen keys, and `source`.
    """
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state]
    unexpected = [k for k in state if k not in wanted]
    shapes = [f"{k}: {tuple(state[k].shape)}, the network has {tuple(wanted[k].shape)}"
              for k in state if k in wanted and state[k].shape != wanted[k].shape]
    if missing or unexpected or shapes:
        parts = [f"{len(group)} {what} ({', '.join(group[:3])}{', ...' if len(group) > 3 else ''})"
                 for what, group in (("keys missing", missing), ("keys unexpected", unexpected),
                                     ("shapes differ", shapes)) if group]
        raise CheckpointError(
            f"{source} do not fit {type(model).__name__}: {'; '.join(parts)}. "
            "They belong to another network or other settings: check `network_g` in the option file "
            "against the settings stored with the weights.")


def load_strictly(model: torch.nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Load a state dict with `strict=True`, after `check_state`.

    Raises:
        CheckpointError: as `check_state`.
    """
    check_state(model, state, source=source)
    model.load_state_dict(state, strict=True)
