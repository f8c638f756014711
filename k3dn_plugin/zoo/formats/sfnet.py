"""The released SFNet checkpoints: a state dict under `model`, single-image; dual-pixel files in the same keys."""
import re
from collections.abc import Mapping
from typing import Any, cast

import torch

from k3dn_plugin.archs.sfnet_arch import GROUPS, KERNEL_SIZES
from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap
from k3dn_plugin.zoo.formats.multi_scale_keys import SCALES, multi_scale_pairs

MOST_BLOCKS = 64


def key_pairs() -> dict[str, str]:
    """Return official prefix -> ours (docs/networks/sfnet.md, sections 4 and 5). `main.0` is a unit's convolution."""
    pairs = multi_scale_pairs()
    for i in range(3):
        for theirs, ours in (("Encoder", "encoder"), ("Decoder", "decoder")):
            for j in range(MOST_BLOCKS):
                block, own = f"{theirs}.{i}.layers.{j}", f"{ours}.{i}.{j}"
                pairs[f"{block}.conv1.main.0"] = f"{own}.conv1"
                pairs[f"{block}.conv2.main.0"] = f"{own}.conv2"
                pairs[f"{block}.localap.h"] = f"{own}.quadrants.high"
                pairs[f"{block}.localap.l"] = f"{own}.quadrants.low"
                pairs[f"{block}.global_ap.fscale_h"] = f"{own}.whole.high"
                pairs[f"{block}.global_ap.fscale_d"] = f"{own}.whole.low"
                for k, name in enumerate(("dyna", "dyna_2")):
                    split, own_split = f"{block}.{name}", f"{own}.frequency.{k}"
                    pairs[f"{split}.lamb_l"] = f"{own_split}.unused_low"
                    pairs[f"{split}.lamb_h"] = f"{own_split}.unused_high"
                    pairs[f"{split}.conv"] = f"{own_split}.predict"
                    pairs[f"{split}.bn"] = f"{own_split}.norm"
                    pairs[f"{split}.modulate.fc"] = f"{own_split}.squeeze"
                    pairs[f"{split}.modulate.fcs.0"] = f"{own_split}.high"
                    pairs[f"{split}.modulate.fcs.1"] = f"{own_split}.low"
                    pairs[f"{split}.modulate.out"] = f"{own_split}.out"
    for number, ours in SCALES:
        pairs[f"FAM{number}.merge.main.0"] = f"{ours}_merge"
        pairs[f"SCM{number}.main.4"] = f"{ours}_input.norm"
        for j in range(4):
            pairs[f"SCM{number}.main.{j}.main.0"] = f"{ours}_input.body.{j}"
    return pairs


@FORMATS.register_module()
class SFNetOfficial(OfficialNetwork):
    """`sfnet` as published, and `sfnet_dual`, our form for pairs: told apart by their first convolution."""

    networks = ("sfnet", "sfnet_dual")
    arch = "SFNet"
    keys = KeyMap(key_pairs())

    def arch_of(self, network: str) -> str:
        """Return the registered restorer of one of the networks."""
        return "SFNetDual" if network == "sfnet_dual" else "SFNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return constructor arguments of the restorer for the official settings."""
        wanted = {"in_channels": 6 if network == "sfnet_dual" else 3, "out_channels": 3, "filter_groups": GROUPS,
                  "filter_sizes": list(KERNEL_SIZES), "window_splits": 2}
        odd = {key: settings[key] for key, value in wanted.items() if key in settings and settings[key] != value}
        if odd:
            raise CheckpointError(f"{network} with {odd}: expected {({key: wanted[key] for key in odd})}, which no "
                                  "published network of this family departs from")
        arguments = {"num_res": settings["num_res"], "base_channels": settings["base_channel"]}
        # A manifest names the test-time pooling in its settings, or beside a golden of its own.
        pool: Any = settings.get("local_pool") or settings.get("base_size")
        if isinstance(pool, Mapping):
            settings = cast("Mapping[str, Any]", pool)
            pool = settings["base_size"]
        if pool is not None:
            arguments |= {"local_pool": pool, "local_pool_crop": settings.get("train_size", 256)}
        return arguments

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not SFNet's.

        The pooling to test with leaves no trace in the weights; the global one, that of training, is assumed.
        """
        blocks = [int(key.split(".")[3]) for key in shapes
                  if re.fullmatch(r"Encoder\.0\.layers\.\d+\.global_ap\.fscale_d", key)]
        last = f"Encoder.0.layers.{max(blocks, default=0)}.dyna.modulate.fcs.0.weight"
        if not blocks or last not in shapes or "feat_extract.0.main.0.weight" not in shapes:
            return None
        width, channels = shapes["feat_extract.0.main.0.weight"][:2]
        return ("sfnet_dual" if channels == 6 else "sfnet"), {
            "in_channels": channels, "out_channels": 3, "base_channel": width, "num_res": max(blocks) + 1,
            "local_pool": None}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        """Return the images at full, half and quarter size."""
        return dict(zip(("restored", "restored_2", "restored_4"), model.scales(inputs["lq"])))
