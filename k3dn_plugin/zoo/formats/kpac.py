"""The released KPAC checkpoints: TensorLayer files, a nameless list or named TensorFlow variables."""
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork

SCOPE = "deblur_net/"
FIRST = f"{SCOPE}deblur/c0/W_conv2d:0"
ENCODER = (("c0", "c0_2"), ("c2", "c2_2"), ("c3", "c3_2"), ("c4", "c4_2"))
UP = (("d0", "d0_2"), ("d1", "d1_2"), ("d2", "d2_2"))
FIXED = {"kernel_size": 5, "out_channels": 3, "leaky_slope": 0.2}


def variables(levels: int, blocks: int) -> list[tuple[str, str]]:
    """Return `(our key, TensorFlow variable)` in the order of the network (docs/networks/kpac.md, section 5)."""
    rows: list[tuple[str, str]] = []

    def layer(ours: str, theirs: str, *leaves: str) -> None:
        rows.extend((f"{ours}.{last}", f"{SCOPE}{theirs}/{leaf}:0")
                    for last, leaf in zip(("weight", "bias"), leaves))

    def conv(ours: str, theirs: str, kind: str = "conv2d") -> None:
        layer(ours, theirs, f"W_{kind}", f"b_{kind}")

    for level, names in enumerate(ENCODER[:levels + 1]):
        for i, name in enumerate(names):
            conv(f"encoder.{level}.{i}.0", f"deblur/{name}")
    for block in range(blocks):
        ours = f"blocks.{block}"
        layer(f"{ours}.shared", f"dc1/{block}", "filter")
        for i in range(4):
            layer(f"{ours}.scale_attention.{2 * i}", f"sca_dc{i + 1}/{block}", "filter", "b")
        conv(f"{ours}.scale_attention.8", f"sca_c2/{block}")
        conv(f"{ours}.shape_attention.0", f"sha_c1/{block}")
        conv(f"{ours}.shape_attention.2", f"sha_c2/{block}")
        conv(f"{ours}.join", f"cf/{block}")
    for i in range(2):
        conv(f"join.{i}.0", f"deblur/cm_{i + 1}")
    for i, (up, after) in enumerate(UP[-levels:]):
        conv(f"up.{i}.0", f"deblur/{up}", "deconv2d")
        conv("out" if i == levels - 1 else f"decoder.{i}.0", f"deblur/{after}")
    return rows


@FORMATS.register_module()
class KPACOfficial(OfficialNetwork):
    """`kpac`, of two or three levels, and `kpac_dual`: number and first shape tell them apart."""

    networks = ("kpac", "kpac_dual")

    def arch_of(self, network: str) -> str:
        return "KPACDual" if network == "kpac_dual" else "KPAC"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        dual = network == "kpac_dual"
        fixed = {**FIXED, "in_channels": 6 if dual else 3, **({"levels": 3} if dual else {})}
        for name, wanted in fixed.items():
            if settings.get(name, wanted) != wanted:
                raise CheckpointError(f"{network} with {name} {settings[name]}: only {wanted} is supported")
        arguments = {"width": settings["width"], "blocks": settings["num_blocks"],
                     "rates": list(settings["rates"])}
        return arguments if dual else {"levels": settings["levels"], **arguments}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official file, or None if it is not KPAC's.

        A nameless list counts by its order, whatever its keys are. Dilations leave no trace; the published
        1, 2, ... are assumed.
        """
        shapes = {key: tuple(shape) for key, shape in shapes.items()}
        if FIRST in shapes:
            levels = 3 if f"{SCOPE}deblur/c4/W_conv2d:0" in shapes else 2
            blocks = sum(re.fullmatch(rf"{SCOPE}dc1/\d+/filter:0", key) is not None for key in shapes)
            known = shapes
        else:
            found = _sizes_of_list(list(shapes.values()))
            if found is None:
                return None
            levels, blocks = found
            known = dict(zip((theirs for _, theirs in variables(levels, blocks)), shapes.values()))
        views, width = known[FIRST][2:]
        attention = known.get(f"{SCOPE}sca_c2/0/W_conv2d:0")
        if attention is None:
            return None
        return ("kpac_dual" if views == 6 else "kpac"), {
            "levels": levels, "in_channels": views, "num_blocks": blocks, "width": width,
            "rates": list(range(1, attention[-1] + 1))}

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return ours from the official arrays: by name where they have the official names, else by order.

        Raises:
            CheckpointError: a nameless list is not as long as that of a published network.
        """
        if FIRST in tensors:
            ours = {theirs: key for key, theirs in _variables_of(tensors)}
            named = {ours.get(key, key): value for key, value in tensors.items()}
        else:
            found = _sizes_of_list([tuple(np.shape(value)) for value in tensors.values()])
            if found is None:
                raise CheckpointError(
                    "official KPAC weights: expected a list of 58 (2-level) or 66 (3-level, dual) arrays in "
                    f"the order in which TensorLayer saves them; found {len(tensors)} in another order"
                    f"{_beginning(tensors)}")
            named = {key: value for (key, _), value in zip(variables(*found), tensors.values())}
        return {key: _to_torch(value) for key, value in named.items()}

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Return {TensorFlow variable: array} for ours, in TensorLayer's order; its values are the nameless list."""
        levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("up."))
        blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        official: dict[str, np.ndarray] = {}
        for key, theirs in variables(levels, blocks):
            value = state[key].detach().cpu().numpy()
            official[theirs] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        return official

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        names = ("center", "left", "right") if network == "kpac_dual" else ("image",)
        return {"output": model.restore(torch.cat([inputs[name] for name in names], 1))}


def _variables_of(names: Collection[str]) -> list[tuple[str, str]]:
    """The variables of the network that has these names, or of a larger one."""
    blocks = sum(key.startswith(f"{SCOPE}dc1/") for key in names)
    return variables(3 if f"{SCOPE}deblur/c4/W_conv2d:0" in names else 2, blocks)


def _beginning(tensors: Mapping[str, np.ndarray]) -> str:
    return next((f", beginning with {key} {tuple(np.shape(value))}" for key, value in tensors.items()), "")


def _sizes_of_list(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int] | None:
    """`(levels, blocks)` of the network whose tensors have these shapes in this order, or None."""
    if not shapes or len(shapes[0]) != 4 or shapes[0][:2] != (5, 5) or shapes[0][2] not in (3, 6):
        return None
    for levels in (2, 3):
        blocks, rest = divmod(len(shapes) - len(variables(levels, 0)), len(variables(levels, 1))
                              - len(variables(levels, 0)))
        if rest or blocks < 1:
            continue
        ranks = [1 if key.endswith(".bias") else 4 for key, _ in variables(levels, blocks)]
        if [len(shape) for shape in shapes] == ranks:
            return levels, blocks
    return None


def _to_torch(value: np.ndarray) -> torch.Tensor:
    value = np.asarray(value)
    # Kernels are H, W, in, out, transposed ones H, W, out, in: one permutation serves both.
    return torch.as_tensor(np.array(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value, order="C"))
