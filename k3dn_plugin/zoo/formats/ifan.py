"""The released IFAN checkpoints: state dicts of a wrapper that holds the network and, from training, the
reblurring network.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.ifan_arch import IFAN
from k3dn_plugin.layers.adaptive_filter import filter_channels
from k3dn_plugin.modules.reblur.filter_reblur import FilterReblur
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import ARCHS, FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap

NETWORK, REBLUR = "Network.", "reblurNet."


def key_pairs() -> dict[str, str]:
    """Official prefix -> ours (`docs/networks/ifan.md`, section 3)."""
    pairs = {REBLUR + "RBF": "reblur.predictor", "conv4_4": "join", "conv_res": "refine",
             "DME": "disparity", "conv_DME": "disparity_features",
             "F": "filters", "out_res": "out"}
    for theirs, ours in (("conv", "encoder"), ("kconv", "filter_encoder")):
        for level in range(4):
            for i in range(3):
                pairs[f"{theirs}{level + 1}_{i + 1}"] = f"{ours}.{level}.{i}"
    for i, level in enumerate((3, 2, 1)):
        pairs[f"upconv{level}_u"] = f"decoder.{i}.up"
        for j in range(2):
            pairs[f"upconv{level}_{j + 1}"] = f"decoder.{i}.blocks.{j}"
    return pairs


class TrainingPair(nn.Module):
    """Network and reblurring network, as the official training wrapper holds them."""

    def __init__(self, restorer: IFAN, reblur: FilterReblur):
        super().__init__()
        self.restorer = restorer
        self.reblur = reblur


@FORMATS.register_module()
class IFANOfficial(OfficialNetwork):
    """`ifan` and `ifan_dual`, and either with the reblurring network (`..._train`)."""

    networks = ("ifan", "ifan_dual", "ifan_train", "ifan_dual_train")
    keys = KeyMap(key_pairs())

    def arch_of(self, network: str) -> str:
        """Return the registered restorer of a network name."""
        return "IFANDual" if "dual" in network else "IFAN"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        return {"width": settings["width"], "iterations": settings["N"], "kernel_size": settings["Fs"]}

    def build(self, settings: Mapping[str, Any], network: str) -> torch.nn.Module:
        restorer = ARCHS.build({"type": self.arch_of(network), **self.arguments(settings, network)})
        if not network.endswith("_train"):
            return restorer.eval()
        channels = filter_channels(restorer.iterations, restorer.channels, restorer.kernel_size)
        reblur = FilterReblur(filters=channels, iterations=settings["RBF_num"], kernel_size=settings["RBFs"])
        return TrainingPair(restorer, reblur).eval()

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not IFAN's."""
        names = {key.removeprefix(NETWORK): tuple(shape) for key, shape in shapes.items()}
        if not {"kconv1_1.0.weight", "DME.3.weight", "F.3.weight"} <= set(names):
            return None
        views = names["kconv1_1.0.weight"][1]
        width = names["conv1_1.0.weight"][0]
        # The taps of a filter leave no trace of their own; every published network has 3.
        iterations = names["F.3.weight"][0] // filter_channels(1, 4 * width, 3)
        return ("ifan_dual" if views == 6 else "ifan"), {"width": width, "N": iterations, "Fs": 3}

    def rename(self, key: str) -> str:
        return self.keys.ours(key.removeprefix(NETWORK))

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return ours from official tensors. Without `_train`, the reblurring network's are left out."""
        if not network.endswith("_train"):
            return super().convert({k: v for k, v in tensors.items() if not k.startswith(REBLUR)}, network)
        return {(k if k.startswith("reblur.") else f"restorer.{k}"): v
                for k, v in super().convert(tensors, network).items()}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        if not network.endswith("_train"):
            views = [inputs[name] for name in (("C", "R", "L") if "dual" in network else ("C",))]
            return {"output": model.restore(torch.cat(views, 1))}
        center, sharp = inputs["C"], inputs["GT"]
        batch = {"lq": torch.cat([inputs["L"], inputs["R"]], 1), "center": center, "gt": sharp}
        prediction = model.restorer.training_outputs(batch)
        reblurred = model.reblur(sharp, ReblurGuidance(batch, prediction, model.restorer))["center"]
        result, warped, left = (prediction[k] for k in ("restored", "warped_right", "small_left"))
        losses = {"loss_image": F.mse_loss(result, sharp), "loss_dme": F.mse_loss(warped, left),
                  "loss_reblur": F.mse_loss(reblurred, F.avg_pool2d(center, FilterReblur.stride))}
        return {"result": result, "f_R_w": warped, "f_L": left, "SB": reblurred,
                **{name: value.reshape(1) for name, value in losses.items()}}
