"""The released LaKDNet checkpoints: bare state dicts, single-image and dual-pixel, sizes S and L."""
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

LAYERS = {"dense_depth_1": "depth1", "dense_point_1": "point1", "dense_depth_2": "depth2", "dense_point_2": "point2"}


@FORMATS.register_module()
class LaKDNetOfficial(OfficialNetwork):
    """`lakdnet` and `lakdnet_dual`, told apart by the channels of the embedding; also the motion-blur networks."""

    networks = ("lakdnet", "lakdnet_dual")
    keys = KeyMap({**level_pairs(), "embed": "embed", "output": "out"})

    def arch_of(self, network: str) -> str:
        """Return `LaKDNetDual` or `LaKDNet`."""
        return "LaKDNetDual" if network == "lakdnet_dual" else "LaKDNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments for the official settings (`docs/networks/lakdnet.md`, section 3).

        Raises:
            CheckpointError: the numbers of channels are not those of the network.
        """
        dual = network == "lakdnet_dual"
        found = settings["inp_channels"], settings["out_channels"], settings["dual_pixel_task"]
        if found != (9 if dual else 3, 3, dual):
            raise CheckpointError(
                f"{network} with {found[0]} channels in, {found[1]} out and dual_pixel_task {found[2]}: only 9 in "
                "(left, right, center; dual_pixel_task) or 3 in (single image), 3 out, are supported")
        return {"width": settings["dim"], "blocks": list(settings["num_blocks"]),
                "kernel_sizes": list(settings["mix_kernel_size"]), "expansion": settings["ffn_expansion_factor"],
                "bias": settings["bias"], "norm_bias": settings["LayerNorm_type"] != "BiasFree"}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not LaKDNet's.

        What the network adds to its output leaves no trace; it follows from the channels in. The expansion is the
        shortest decimal that gives the widths found (2.3 for the published ones).
        """
        if "embed.weight" not in shapes or "encoder_level1.0.mixer.dense_depth_1.weight" not in shapes:
            return None
        width, channels = shapes["embed.weight"][:2]
        stages = stage_names()
        hidden, deepest = shapes["latent.0.ffn.project_out.weight"][1], width * 2 ** (LEVELS - 1)
        dual = channels > 3
        return "lakdnet_dual" if dual else "lakdnet", {
            "inp_channels": channels, "out_channels": shapes["output.weight"][0], "dim": width,
            "num_blocks": [count_blocks(shapes, stage) for stage in stages],
            "mix_kernel_size": [shapes[f"{stage}.0.mixer.dense_depth_1.weight"][-1] for stage in stages],
            "ffn_expansion_factor": find_expansion(hidden, deepest),
            "bias": "embed.bias" in shapes,
            "LayerNorm_type": "WithBias" if "latent.0.norm1.body.bias" in shapes else "BiasFree",
            "dual_pixel_task": dual}

    def rename(self, key: str) -> str:
        """Return our key for an official one."""
        for official, ours in LAYERS.items():
            key = key.replace(f".mixer.{official}.", f".mixer.{ours}.")
        return self.keys.ours(without_body(key))

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict for ours."""
        return {self._official(key): value for key, value in state.items()}

    def _official(self, key: str) -> str:
        key = with_body(self.keys.official(key))
        for official, ours in LAYERS.items():
            key = key.replace(f".mixer.{ours}.", f".mixer.{official}.")
        return key

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        """Return the restored image of the official call, whose inputs are named L, R and C."""
        names = ("L", "R", "C") if network == "lakdnet_dual" else ("C",)
        return {"restored": model.restore(torch.cat([inputs[name] for name in names], 1))}
