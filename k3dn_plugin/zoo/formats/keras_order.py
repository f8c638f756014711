"""Keras tensors and ours, matched by order: names of Keras layers depend on version and session."""
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.formats.base import OfficialNetwork


class KerasTensor(NamedTuple):
    """One tensor: our key, the last part of its Keras name ("kernel", "bias"), its Keras layer."""

    ours: str
    kind: str
    layer: str


class KerasNetwork(OfficialNetwork):
    """A network published as a Keras file; a subclass says which tensors it holds, in Keras's order."""

    @staticmethod
    @abstractmethod
    def tensors_in_order() -> list[KerasTensor]:
        """Return every tensor in Keras's order, with the names that Keras gives in a fresh session."""

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return ours from Keras tensors in Keras's order (layers without weights left out).

        Raises:
            CheckpointError: there are more or fewer of them, or in another order.
        """
        return from_keras(tensors, self.tensors_in_order(), self.arch)

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Return the Keras tensors of ours, in order: {layer/kind:0: array, kernels as H, W, in, out}."""
        return to_keras(state, self.tensors_in_order())


def from_keras(tensors: Mapping[str, np.ndarray], rows: Sequence[KerasTensor],
               family: str) -> dict[str, torch.Tensor]:
    """Return our state dict from Keras tensors in Keras's order (layers without weights left out).

    Raises:
        CheckpointError: there are more or fewer of them than `rows`, or in another order.
    """
    kinds = [kind_of(key) for key in tensors]
    if kinds != [row.kind for row in rows]:
        wrong = next((i for i, (kind, row) in enumerate(zip(kinds, rows)) if kind != row.kind),
                     min(len(kinds), len(rows)))
        found = list(tensors)[wrong] if wrong < len(tensors) else "nothing"
        raise CheckpointError(
            f"official {family} weights: expected {len(rows)} tensors in Keras's order; found {len(kinds)}, "
            f"of which number {wrong + 1} is {found}. Is it a whole-model file of {family}?")
    state: dict[str, torch.Tensor] = {}
    for row, value in zip(rows, tensors.values()):
        value = np.asarray(value)
        state[row.ours] = torch.as_tensor(
            np.array(value if row.kind == "bias" else value.transpose(3, 2, 0, 1), order="C"))
    return state


def to_keras(state: Mapping[str, torch.Tensor], rows: Sequence[KerasTensor]) -> dict[str, np.ndarray]:
    """Return the Keras tensors of ours, in order: {layer/kind:0: array, kernels as H, W, in, out}."""
    official: dict[str, np.ndarray] = {}
    for ours, kind, layer in rows:
        value = state[ours].detach().cpu().numpy()
        official[f"{layer}/{kind}:0"] = value if kind == "bias" else value.transpose(2, 3, 1, 0)
    return official


def kind_of(key: str) -> str:
    """Return `kernel` of `conv2d_1/kernel:0`."""
    return key.split("/")[-1].split(":")[0]
