"""The released INIKNet checkpoint: a bare state dict, single-image; dual-pixel files in the same keys."""
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap

MOST_BLOCKS = 16
BASIS = re.compile(r"inr_conv\.kernelINR_list\.(\d+)\.layers\.(.+)")
# Tensors of one basis, which ours holds for all bases together; a frequency stands under two keys.
BASIS_KEYS = {"0.weight": "bank.weight0", "0.bias": "bank.bias0", "1.w0": "bank.frequency", "2.weight": "bank.weight2",
              "2.bias": "bank.bias2", "3.w0": "bank.frequency", "4.weight": "bank.weight4"}


def key_pairs() -> dict[str, str]:
    """Return official prefix -> ours (docs/networks/iniknet.md, section 4), without the kernel bank."""
    pairs = {"scale_select": "select_size", "basis_select": "select_basis", "sum": "mix"}
    for theirs, ours in (("lstms_basis_select", "basis_recurrence"), ("lstms_scale_select", "size_recurrence")):
        pairs[f"{theirs}.norm.norm"] = f"{ours}.norm"
        for direction, own in (("left2right", "to_fine"), ("right2left", "to_coarse")):
            pairs[f"{theirs}.{direction}.cell.conv"] = f"{ours}.{own}.gates"
            for j in range(MOST_BLOCKS):
                for k in range(2):
                    pairs[f"{theirs}.{direction}.cell.layers.layers.{j}.main.{k}.main.0"] = f"{ours}.{own}.body.{j}.{k}"
    for part, own, levels in (("Encoder", "encoder", 3), ("Decoder", "decoder", 2)):
        for i in range(levels):
            for j in range(MOST_BLOCKS):
                for k in range(2):
                    pairs[f"unet.{part}.{i}.layers.{j}.main.{k}.main.0"] = f"features.{own}.{i}.{j}.{k}"
    for i in range(3):
        pairs[f"unet.feat_extract.{i}.main.0"] = f"features.extract.{i}"
    for i in range(2):
        pairs[f"unet.feat_extract.{i + 3}.main.0"] = f"features.join.{i}"
        pairs[f"unet.up{i + 1}.main.0"] = f"features.up.{i}"
    return pairs


@FORMATS.register_module()
class INIKNetOfficial(OfficialNetwork):
    """`iniknet` as published, and `iniknet_dual`, our form for pairs: told apart by their first convolution."""

    networks = ("iniknet", "iniknet_dual")
    arch = "INIKNet"
    keys = KeyMap(key_pairs())

    def arch_of(self, network: str) -> str:
        """Return the registered restorer of one of the networks."""
        return "INIKNetDual" if network == "iniknet_dual" else "INIKNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments of the restorer for the official settings."""
        wanted = 6 if network == "iniknet_dual" else 3
        if settings.get("in_channels", wanted) != wanted or settings.get("channel_order", "BGR").lower() != "bgr":
            raise CheckpointError(f"{network} with {settings.get('in_channels', wanted)} channels in and channel order "
                                  f"{settings.get('channel_order', 'BGR')}: expected {wanted} in and BGR")
        return {"width": settings["base_channels"], "unet_blocks": settings["unet_residual_blocks"],
                "recurrent_blocks": settings["lstm_residual_blocks"], "bases": settings["basis_number"],
                "max_kernel_size": settings["max_kernel_size"], "hidden": settings["inr_hidden"]}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not INIKNet's."""
        needed = ("inr_conv.kernelINR_list.0.layers.1.w0", "lstms_scale_select.left2right.cell.conv.weight",
                  "unet.feat_extract.0.main.0.weight", "scale_select.weight", "basis_select.weight", "sum.weight",
                  "inr_conv.kernelINR_list.0.layers.0.weight")
        if any(key not in shapes for key in needed):
            return None
        channels = shapes["unet.feat_extract.0.main.0.weight"][1]
        groups, width = shapes["scale_select.weight"][:2]
        bases = len({found[1] for key in shapes if (found := BASIS.fullmatch(key))})
        if shapes["sum.weight"][1] != groups * channels * bases:
            raise CheckpointError(
                f"an INIKNet file whose sum.weight reads {shapes['sum.weight'][1]} responses; expected "
                f"{groups * channels * bases}: {groups} sizes of {bases} bases on {channels} channels")
        return ("iniknet_dual" if channels == 6 else "iniknet"), {
            "in_channels": channels, "base_channels": width,
            "unet_residual_blocks": _count(shapes, r"unet\.Encoder\.0\.layers\.(\d+)\..*"),
            "lstm_residual_blocks": _count(shapes, r"lstms_scale_select\.left2right\.cell\.layers\.layers\.(\d+)\..*"),
            "basis_number": bases, "max_kernel_size": 2 * groups - 1,
            "inr_hidden": shapes["inr_conv.kernelINR_list.0.layers.0.weight"][0], "channel_order": "BGR"}

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Ours from official tensors: those of the bases are stacked; of a frequency's two values the later counts."""
        bank: dict[str, dict[int, torch.Tensor]] = {}
        rest: dict[str, np.ndarray] = {}
        for key, value in tensors.items():
            found = BASIS.fullmatch(key)
            if found and found[2] in BASIS_KEYS:
                bank.setdefault(BASIS_KEYS[found[2]], {})[int(found[1])] = torch.as_tensor(np.array(value, order="C"))
            else:
                rest[key] = value
        stacked = {key: torch.stack([values[i] for i in sorted(values)]) for key, values in bank.items()}
        return {**super().convert(rest, network), **stacked}

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict for ours."""
        official: dict[str, torch.Tensor] = {}
        for key, value in state.items():
            if not key.startswith("bank."):
                official[self.keys.official(key)] = value
                continue
            for theirs in (theirs for theirs, ours in BASIS_KEYS.items() if ours == key):
                for i, one in enumerate(value):
                    official[f"inr_conv.kernelINR_list.{i}.layers.{theirs}"] = one
        return official

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        """Return the images at full, half and quarter size."""
        return dict(zip(("restored", "restored_2", "restored_4"), model.scales(inputs["lq"])))


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """Blocks of a stage."""
    return len({found[1] for key in shapes if (found := re.fullmatch(pattern, key))})
