"""The released DRBNet checkpoints: bare state dicts, single-image and dual-pixel."""
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap

FACTORS = (1, 2, 4, 8)


def key_pairs() -> dict[str, str]:
    """Official prefix -> ours (`docs/networks/drbnet.md`, section 3)."""
    pairs = {f"conv{level + 1}_{i + 1}": f"encoder.{level}.{i}" for level in range(4) for i in range(3)}
    pairs.update({f"conv4_4.{i}": f"join.{i}" for i in (0, 3)})
    pairs.update({f"conv4_4.{i}.stem.0": f"join.{i}.body" for i in (1, 2)})
    for i, level in enumerate((3, 2, 1)):
        pairs[f"upconv{level}_u"] = f"decoder.{i}.up"
        for j in range(2):
            pairs[f"upconv{level}_{j + 1}.stem.0"] = f"decoder.{i}.blocks.{j}.body"
    # The official numbers: the heads of level N act where upconvN begins, before it doubles the size.
    for i, (level, fraction) in enumerate(((3, 8), (2, 4), (1, 2), (0, 1))):
        pairs[f"img_d{fraction}_feature"] = f"steps.{i}.image_features"
        pairs[f"upconv{level}_kernel"] = f"steps.{i}.kernels"
        pairs[f"upconv{level}_res"] = f"steps.{i}.residual"
    return pairs


@FORMATS.register_module()
class DRBNetOfficial(OfficialNetwork):
    """`drbnet` and `drbnet_dual`: the encoder's first convolution tells them apart."""

    networks = ("drbnet", "drbnet_dual")
    keys = KeyMap(key_pairs())

    def arch_of(self, network: str) -> str:
        return "DRBNetDual" if network == "drbnet_dual" else "DRBNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        widths = list(settings["widths"])
        if widths != [factor * widths[0] for factor in FACTORS]:
            raise CheckpointError(f"DRBNet with widths {widths}: each level must be twice as wide as the one "
                                  "before, in four levels")
        views = 6 if network == "drbnet_dual" else 3
        if settings["in_channels_encoder"] != views:
            raise CheckpointError(f"{network} with in_channels_encoder {settings['in_channels_encoder']}: "
                                  f"expected {views}; drbnet takes one image, drbnet_dual two views")
        return {"width": widths[0], "kernel_size": settings["dynamic_kernel_width"]}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not DRBNet's."""
        if not {"conv1_1.0.weight", "img_d8_feature.0.0.weight", "upconv0_kernel.2.weight"} <= set(shapes):
            return None
        width, views = shapes["conv1_1.0.weight"][:2]
        return ("drbnet_dual" if views == 6 else "drbnet"), {
            "in_channels_encoder": views, "widths": [factor * width for factor in FACTORS],
            "dynamic_kernel_width": round(shapes["upconv0_kernel.2.weight"][0] ** 0.5)}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        names = ("C", "R", "L") if network == "drbnet_dual" else ("C",)
        return {"output": model.restore(torch.cat([inputs[name] for name in names], 1))}
