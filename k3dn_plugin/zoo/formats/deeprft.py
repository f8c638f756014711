"""The released DeepRFT checkpoints, with factored kernels (as trained) or folded ones (as tested)."""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap
from k3dn_plugin.zoo.formats.multi_scale_keys import SCALES, multi_scale_pairs

MOST_BLOCKS = 64


def key_pairs() -> dict[str, str]:
    """Official prefix -> ours (`docs/networks/deeprft.md`, sections 4 and 5). `main.0` is a unit's convolution."""
    pairs = multi_scale_pairs()
    for i in range(3):
        for theirs, ours in (("Encoder", "encoder"), ("Decoder", "decoder")):
            for j in range(MOST_BLOCKS):
                for k in range(2):
                    block = f"{theirs}.{i}.layers.{j}"
                    pairs[f"{block}.main.{k}.main.0"] = f"{ours}.{i}.{j}.spatial.{k}"
                    pairs[f"{block}.main_fft.{k}.main.0"] = f"{ours}.{i}.{j}.spectral.{k}"
    for i in range(2):
        for j in range(2):
            pairs[f"AFFs.{i}.conv.{j}.main.0"] = f"fuse.{i}.{j}"
    for number, ours in SCALES:
        pairs[f"FAM{number}.merge.main.0"] = f"{ours}_attention.merge"
        pairs[f"SCM{number}.conv.main.0"] = f"{ours}_input.join"
        for j in range(4):
            pairs[f"SCM{number}.main.{j}.main.0"] = f"{ours}_input.main.{j}"
    return pairs


@FORMATS.register_module()
class DeepRFTOfficial(OfficialNetwork):
    """`deeprft`: small, standard and plus are told apart by their number of blocks."""

    networks = ("deeprft",)
    arch = "DeepRFT"
    keys = KeyMap(key_pairs())

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        return {"num_res": settings["num_res"], "base_channels": settings["base_channel"],
                "window": settings.get("win_size")}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not DeepRFT's.

        The training patch leaves no trace in the weights; 512, that of the defocus network, is assumed.
        """
        if "SCM1.conv.main.0.W" not in shapes or "Encoder.0.layers.0.main_fft.0.main.0.W" not in shapes:
            return None
        blocks = 1 + max(int(key.split(".")[3]) for key in shapes if key.startswith("Encoder.0.layers."))
        return "deeprft", {"num_res": blocks, "base_channel": shapes["feat_extract.0.main.0.W"][0],
                           "win_size": 512}

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return ours from official tensors; a folded kernel (out, in, k, k) becomes W, D = 0, D_diag = identity."""
        state: dict[str, torch.Tensor] = {}
        for key, value in super().convert(tensors, network).items():
            if key.endswith(".W") and value.ndim == 4:
                value = value.flatten(2)
                inputs, taps = value.shape[1:]
                if taps > 1:
                    state[key[:-1] + "D"] = value.new_zeros(inputs, taps, taps)
                    state[key[:-1] + "D_diag"] = torch.eye(taps, dtype=value.dtype).repeat(inputs, 1, 1)
            state[key] = value
        return state

    def fold(self, official: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, np.ndarray | torch.Tensor]:
        """Return the official test form, kernels folded, for an official state dict in its training form."""
        folded: dict[str, np.ndarray | torch.Tensor] = {}
        for key, value in official.items():
            if key.endswith(".W"):
                kernel = torch.as_tensor(np.asarray(value))
                prefix = key[:-1]
                if prefix + "D" in official:
                    mixing = torch.as_tensor(np.asarray(official[prefix + "D"])) + torch.as_tensor(
                        np.asarray(official[prefix + "D_diag"]))
                    kernel = torch.einsum("ims,ois->oim", mixing, kernel)
                side = round(kernel.shape[-1] ** 0.5)
                folded[key] = kernel.reshape(*kernel.shape[:-1], side, side)
            elif not key.endswith((".D", ".D_diag")):
                folded[key] = value
        return folded

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        if network.endswith(":windowed"):
            return {"windowed": model.restore(inputs["lq"])}
        full, half, quarter = model.scales(inputs["lq"])
        return {"restored": full, "restored_2": half, "restored_4": quarter}
