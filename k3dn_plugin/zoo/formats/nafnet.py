"""The released NAFNet checkpoints (`params`), and the same layout for our dual-pixel form."""
import re
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork

MARKS = ("intro.weight", "ending.weight", "encoders.0.0.beta", "encoders.0.0.sca.1.weight")
DEFOCUS_BLOCKS = [1, 1, 1, 28]
TRAIN_SIZE = [1, 3, 256, 256]


@FORMATS.register_module()
class NAFNetOfficial(OfficialNetwork):
    """`nafnet`: the single-image networks of any width and blocks; `nafnet_dual`: ours, of six channels in."""

    networks = ("nafnet", "nafnet_dual")

    def arch_of(self, network: str) -> str:
        """Return `NAFNetDual` or `NAFNet`."""
        return "NAFNetDual" if network == "nafnet_dual" else "NAFNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments for the official settings (`docs/networks/nafnet.md`, section 3).

        Raises:
            CheckpointError: the channels are not those of the network, or `fast_imp` is on.
        """
        channels = (settings["in_channels"], settings["out_channels"]) if network == "nafnet_dual" else (
            settings["img_channel"], settings.get("out_channels", settings["img_channel"]))
        wanted = (6, 3) if network == "nafnet_dual" else (3, 3)
        if channels != wanted:
            raise CheckpointError(f"{network} with {channels[0]} channels in and {channels[1]} out: only {wanted[0]} "
                                  f"in and {wanted[1]} out are supported")
        if settings.get("residual", "center") != "center":
            raise CheckpointError(f"nafnet_dual with residual {settings['residual']!r}: only 'center' is supported")
        local = settings.get("local_pooling", False)
        if local and settings.get("fast_imp", False):
            raise CheckpointError("nafnet with fast_imp: the subsampled pooling is another function, which no "
                                  "published network uses; set it to false")
        return {"width": settings["width"], "encoder_blocks": list(settings["enc_blk_nums"]),
                "middle_blocks": settings["middle_blk_num"], "decoder_blocks": list(settings["dec_blk_nums"]),
                "train_size": list(settings.get("train_size", TRAIN_SIZE)[-2:]) if local else None}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not NAFNet's.

        The pooling leaves no trace: local windows for crops of 256 x 256 are assumed with the blocks of the published
        defocus networks, global pooling otherwise.
        """
        if any(key not in shapes for key in MARKS):
            return None
        width, inputs = shapes["intro.weight"][:2]
        outputs = shapes["ending.weight"][0]
        levels = len({key.split(".")[1] for key in shapes if key.startswith("downs.")})
        blocks = {"enc_blk_nums": [_count(shapes, f"encoders.{level}") for level in range(levels)],
                  "middle_blk_num": _count(shapes, "middle_blks"),
                  "dec_blk_nums": [_count(shapes, f"decoders.{level}") for level in range(levels)]}
        local = blocks["enc_blk_nums"] == DEFOCUS_BLOCKS
        pooling = {"local_pooling": True, "train_size": list(TRAIN_SIZE), "fast_imp": False} if local else {
            "local_pooling": False}
        if inputs == 2 * outputs:
            return "nafnet_dual", {"in_channels": inputs, "out_channels": outputs, "width": width, **blocks, **pooling,
                                   "residual": "center"}
        return "nafnet", {"img_channel": inputs, **({} if outputs == inputs else {"out_channels": outputs}),
                          "width": width, **blocks, **pooling}

    def rename(self, key: str) -> str:
        """Return our key for an official one."""
        key = re.sub(r"^(ups\.\d+)\.0\.", r"\1.", key.replace(".sca.1.", ".attention."))
        return "trunk." + re.sub(r"^middle_blks\.", "middle.", key)

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict for ours."""
        return {_official(key): value for key, value in state.items()}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        """Return the restored image of the official call."""
        names = ("left", "right", "center") if network == "nafnet_dual" else ("image",)
        return {"restored": model.restore(torch.cat([inputs[name] for name in names], 1))}


def _official(key: str) -> str:
    key = re.sub(r"^middle\.", "middle_blks.", key.removeprefix("trunk."))
    return re.sub(r"^(ups\.\d+)\.", r"\1.0.", key.replace(".attention.", ".sca.1."))


def _count(shapes: Mapping[str, tuple[int, ...]], stage: str) -> int:
    """Number of blocks of a stage."""
    return len({key[len(stage) + 1:].split(".")[0] for key in shapes if key.startswith(f"{stage}.")})
