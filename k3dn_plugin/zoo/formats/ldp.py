"""The released LDP checkpoint: a state dict under `params`; its blur map comes from elsewhere."""
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap
from k3dn_plugin.zoo.formats.nafnet import NAFNetOfficial
from k3dn_plugin.zoo.formats.u_keys import count_blocks

MARKS = ("patch_embed.proj.weight", "ca.temperature", "naf.intro.weight")


@FORMATS.register_module()
class LDPOfficial(OfficialNetwork):
    """`ldp`: the deblurring network (`docs/networks/ldp.md`, section 3), with NAFNet's keys under `naf.`."""

    networks = ("ldp",)
    arch = "LDP"
    keys = KeyMap({"patch_embed.proj": "embed", "ca": "attention", "skip_conv": "skip", "output": "out"})

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments of ours for the official settings."""
        channels = settings["inp_channels"], settings["out_channels"]
        if channels != (6, 3):
            raise CheckpointError(f"ldp with {channels[0]} channels in and {channels[1]} out: expected 6 and 3")
        if settings.get("local_pooling"):
            raise CheckpointError("ldp with local_pooling: its trunk pools globally")
        side = settings["width"] // settings["heads"]
        if list(settings.get("mask_grid", [side, side])) != [side, side]:
            raise CheckpointError(f"ldp with mask_grid {settings['mask_grid']}: the grid must have the {side} channels "
                                  "of a head as rows and columns")
        return {"width": settings["width"], "heads": settings["heads"], "bias": settings["bias"],
                "encoder_blocks": list(settings["enc_blk_nums"]), "middle_blocks": settings["middle_blk_num"],
                "decoder_blocks": list(settings["dec_blk_nums"])}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `("ldp", settings)` for the shapes of an official state dict, or None if it is not LDP's."""
        if any(key not in shapes for key in MARKS):
            return None
        width, channels = shapes["patch_embed.proj.weight"][:2]
        heads = shapes["ca.temperature"][0]
        levels = count_blocks(shapes, "naf.downs")
        return "ldp", {
            "inp_channels": channels, "out_channels": shapes["output.weight"][0], "bias": "output.bias" in shapes,
            "width": width, "heads": heads, "mask_grid": [width // heads] * 2,
            "enc_blk_nums": [count_blocks(shapes, f"naf.encoders.{level}") for level in range(levels)],
            "middle_blk_num": count_blocks(shapes, "naf.middle_blks"),
            "dec_blk_nums": [count_blocks(shapes, f"naf.decoders.{level}") for level in range(levels)],
            "local_pooling": False}

    def rename(self, key: str) -> str:
        """Return our key for an official one."""
        trunk = key.removeprefix("naf.")
        return self.keys.ours(key) if trunk == key else NAFNetOfficial().rename(trunk)

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict for ours; a blur map module's tensors have no place in it."""
        trunk = NAFNetOfficial().to_official({k: v for k, v in state.items() if k.startswith("trunk.")})
        return {**{self.keys.official(key): value for key, value in state.items()
                   if not key.startswith(("trunk.", "blur_map."))},
                **{f"naf.{key}": value for key, value in trunk.items()}}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor], network: str) -> dict[str, torch.Tensor]:
        """Return the restored image of the official call."""
        views = torch.cat([inputs["left"], inputs["right"]], 1)
        return {"restored": model.guided(views, inputs["blur_map"])}
