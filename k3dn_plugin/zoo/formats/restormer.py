"""The released Restormer checkpoints: a state dict under `params`, dual-pixel or single-image."""
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.errors import CheckpointError
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


def key_pairs() -> dict[str, str]:
    """Official prefix, without the wrappers called `body`, -> ours (`docs/networks/restormer.md`, section 4)."""
    return {"patch_embed.proj": "embed", **level_pairs(), "skip_conv": "skip", "output": "out"}


@FORMATS.register_module()
class RestormerOfficial(OfficialNetwork):
    """`restormer`: dual-pixel and single-image defocus deblurring, and the other networks of its size."""

    networks = ("restormer",)
    arch = "Restormer"
    keys = KeyMap(key_pairs())

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        channels, dual = settings["inp_channels"], settings["dual_pixel_task"]
        if (channels, settings["out_channels"]) != (6 if dual else 3, 3):
            raise CheckpointError(
                f"Restormer with {channels} channels in, {settings['out_channels']} out and dual_pixel_task "
                f"{dual}: only 6 in (dual-pixel) or 3 in (single image), 3 out, are supported")
        return {"dual_pixel": dual, "width": settings["dim"], "blocks": list(settings["num_blocks"]),
                "refinement_blocks": settings["num_refinement_blocks"], "heads": list(settings["heads"]),
                "expansion": settings["ffn_expansion_factor"], "bias": settings["bias"],
                "norm_bias": settings["LayerNorm_type"] != "BiasFree"}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not Restormer's.

        The expansion is the shortest decimal that gives the widths found (2.66 for the published ones).
        """
        if "patch_embed.proj.weight" not in shapes or "refinement.0.attn.temperature" not in shapes:
            return None
        width, channels = shapes["patch_embed.proj.weight"][:2]
        stages = stage_names()
        hidden, deepest = shapes["latent.0.ffn.project_out.weight"][1], width * 2 ** (LEVELS - 1)
        return "restormer", {
            "inp_channels": channels, "out_channels": shapes["output.weight"][0], "dim": width,
            "num_blocks": [count_blocks(shapes, stage) for stage in stages],
            "num_refinement_blocks": count_blocks(shapes, "refinement"),
            "heads": [shapes[f"{stage}.0.attn.temperature"][0] for stage in stages],
            "ffn_expansion_factor": find_expansion(hidden, deepest),
            "bias": "output.bias" in shapes,
            "LayerNorm_type": "WithBias" if "latent.0.norm1.body.bias" in shapes else "BiasFree",
            "dual_pixel_task": "skip_conv.weight" in shapes}

    def rename(self, key: str) -> str:
        return self.keys.ours(without_body(key))

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict for ours."""
        return {with_body(self.keys.official(key)): value for key, value in state.items()}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        return {"restored": model.restore(inputs["lq"])}
