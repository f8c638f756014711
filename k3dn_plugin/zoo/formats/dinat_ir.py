"""The released DiNAT-IR checkpoints, single and dual, and their operator's reference outputs.

The dual network was trained on B, G, R views; ours reads R, G, B, so the input channels of its first convolution are
turned on the way in and out (`docs/networks/dinat_ir.md`, section 8).
"""
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.layers.neighbourhood_attention import NeighbourhoodAttention, neighbourhood_attention
from k3dn_plugin.layers.neighbourhood_unit import ChannelGate
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap
from k3dn_plugin.zoo.formats.u_keys import (
    LEVELS,
    count_blocks,
    find_expansion,
    level_pairs,
    stage_names,
    with_body,
    without_body,
)

BGR = [2, 1, 0, 5, 4, 3]
UNITS = {"local": "0", "globl": "1"}
PARTS = {"na2d": "attention", "conv": "gate.conv"}
# A file does not say: the published dilations, gate windows and reading order.
UNSEEN = {"dilations": [36, 18, 9, 4], "local_dilation": 1, "mode": "hybrid",
          "local_pooling": {"window_per_level": [384, 192, 96, 48]}}


@FORMATS.register_module()
class DiNATIROfficial(OfficialNetwork):
    """`dinat_ir` and `dinat_ir_dual`: the skip from the embedding tells them apart."""

    networks = ("dinat_ir", "dinat_ir_dual")
    keys = KeyMap({"patch_embed.proj": "embed", **level_pairs(), "skip_conv": "skip", "output": "out"})

    def arch_of(self, network: str) -> str:
        """Return `DiNATIRDual` for the dual-pixel network."""
        return "DiNATIRDual" if network == "dinat_ir_dual" else "DiNATIR"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments of ours for the official settings."""
        dual = network == "dinat_ir_dual"
        found = settings["inp_channels"], settings["out_channels"], settings["dual_pixel_task"]
        if found != (6 if dual else 3, 3, dual):
            raise CheckpointError(f"{network} with {found[0]} channels in, {found[1]} out and dual_pixel_task "
                                  f"{found[2]}: expected {6 if dual else 3} in, 3 out and {dual}")
        levels = len(settings["num_blocks"])
        near, far = [settings["local_dilation"]] * levels, list(settings["dilations"])
        first, second = {"hybrid": (near, far), "local_only": (near, near), "globl_only": (far, far)}[settings["mode"]]
        pooling: Mapping[str, Any] = settings.get("local_pooling") or {}
        windows = pooling.get("window_per_level")
        return {"width": settings["dim"], "blocks": list(settings["num_blocks"]),
                "refinement_blocks": settings["num_refinement_blocks"], "heads": list(settings["heads"]),
                "kernel_size": settings["kernel_size"], "dilations": second, "first_dilations": first,
                "expansion": settings["ffn_expansion_factor"], "bias": settings["bias"],
                "norm_bias": settings["LayerNorm_type"] != "BiasFree",
                "gate_kernel": settings["gate_kernel"] if settings["chan_adapt"] else 0,
                "pool_windows": windows and [_pair(window) for window in windows]}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` for the shapes of an official state dict, or None if it is not DiNAT-IR's."""
        table = shapes.get("latent.0.globl.na2d.rpb")
        if table is None or "patch_embed.proj.weight" not in shapes or "refinement.0.local.na2d.rpb" not in shapes:
            return None
        width, channels = shapes["patch_embed.proj.weight"][:2]
        dual = "skip_conv.weight" in shapes
        hidden = shapes["latent.0.local.ffn.project_out.weight"][1]
        gate = shapes.get("latent.0.local.conv.weight")
        return "dinat_ir_dual" if dual else "dinat_ir", {
            "inp_channels": channels, "out_channels": shapes["output.weight"][0], "dim": width,
            "num_blocks": [count_blocks(shapes, stage) for stage in stage_names()],
            "num_refinement_blocks": count_blocks(shapes, "refinement"),
            "heads": [shapes[f"{stage}.0.local.na2d.rpb"][0] for stage in stage_names()],
            "kernel_size": (table[-1] + 1) // 2,
            "ffn_expansion_factor": find_expansion(hidden, width * 2 ** (LEVELS - 1)),
            "bias": "output.bias" in shapes,
            "LayerNorm_type": "WithBias" if "latent.0.local.norm1.body.bias" in shapes else "BiasFree",
            "chan_adapt": gate is not None, "gate_kernel": gate[-1] if gate is not None else 7,
            "dual_pixel_task": dual, **UNSEEN}

    def rename(self, key: str) -> str:
        """Return our key for an official one."""
        key = re.sub(r"\.(local|globl)\.", lambda found: f".{UNITS[found[1]]}.", without_body(key))
        key = re.sub(r"(\.\d+\.\d+)\.(na2d|conv)\.", lambda found: f"{found[1]}.{PARTS[found[2]]}.", key)
        return self.keys.ours(key)

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return our state dict from official tensors."""
        return _turned(super().convert(tensors, network))

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict for ours."""
        found: dict[str, torch.Tensor] = {}
        for key, value in _turned(dict(state)).items():
            key = re.sub(r"\.attention\.(rpb|qkv|proj)", r".na2d.\1", self.keys.official(key)).replace(
                ".gate.conv.", ".conv.")
            key = re.sub(r"^(\w+\.\d+)\.([01])\.(?=na2d|conv|norm|ffn)",
                         lambda unit: f"{unit[1]}.{['local', 'globl'][int(unit[2])]}.", key)
            found[with_body(key)] = value
        return found

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor], network: str) -> dict[str, torch.Tensor]:
        """Return the restored image of the official call; the dual network is shown its views in R, G, B."""
        lq = inputs["lq"]
        return {"restored": model.restore(lq[:, BGR] if network == "dinat_ir_dual" else lq)}


def _turned(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the dual embedding's input channels turned between B, G, R and R, G, B."""
    first = state.get("embed.weight")
    if first is not None and first.shape[1] == len(BGR):
        state["embed.weight"] = first[:, BGR].contiguous()
    return state


def _pair(window: int | list[int]) -> tuple[int, int]:
    """Rows and columns of a window that may be given as one side."""
    rows, columns = (window, window) if isinstance(window, int) else window
    return rows, columns


class _Operator(nn.Module):
    """The attention without parameters, so that it can be built, loaded and asked like a network."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation


class _Layer(OfficialNetwork):
    """A layer whose reference outputs exist beside those of the networks; never a file of its own."""

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return the settings as they are."""
        return dict(settings)

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """None: no file holds one layer."""


@FORMATS.register_module()
class NeighbourhoodAttentionOfficial(_Layer):
    """`neighbourhood_attention` (the operator) and `neighbourhood_attention_module` (with its projections)."""

    networks = ("neighbourhood_attention", "neighbourhood_attention_module")

    def build(self, settings: Mapping[str, Any], network: str) -> nn.Module:
        """Return the operator with its dilation, or the module."""
        if network == "neighbourhood_attention":
            return _Operator(settings["dilation"])
        if not settings.get("qkv_bias", True):
            raise CheckpointError("neighbourhood_attention_module without qkv_bias: ours always has one")
        return NeighbourhoodAttention(settings["channels"], settings["heads"], kernel_size=settings["kernel_size"],
                                      dilation=settings["dilation"]).eval()

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor], network: str) -> dict[str, torch.Tensor]:
        """Return `attended` of the operator; `out` of the module, channels first as the manifest's inputs become."""
        if network == "neighbourhood_attention":
            query, key, value, bias = (inputs[name] for name in ("query", "key", "value", "bias"))
            return {"attended": neighbourhood_attention(query, key, value, bias, model.dilation)}
        return {"out": model(inputs["x"].movedim(1, -1)).movedim(-1, 1)}


@FORMATS.register_module()
class ChannelGateOfficial(_Layer):
    """`dinat_ir_gate`: the channel gate alone, expanded to every pixel."""

    networks = ("dinat_ir_gate",)

    def build(self, settings: Mapping[str, Any], network: str) -> nn.Module:
        """Return the gate with its window."""
        return ChannelGate(settings["gate_kernel"], window=_pair(settings["window"])).eval()

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor], network: str) -> dict[str, torch.Tensor]:
        """Return `gate` at every pixel."""
        return {"gate": model(inputs["x"]).expand_as(inputs["x"])}
