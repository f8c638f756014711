"""The released DDDNet checkpoints: one file for each of the two networks, with our keys."""
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.archs.dddnet_arch import DepthNetwork, ImageNetwork
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork

PARTS = ("estd", "esti")


@FORMATS.register_module()
class DDDNetOfficial(OfficialNetwork):
    """`dddnet_estd` and `dddnet_esti` as published; `dddnet` for both, under `estd.` and `esti.`."""

    networks = ("dddnet", "dddnet_estd", "dddnet_esti")
    arch = "DDDNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        """Return the constructor's arguments; settings of one of the two parts leave the other's at the defaults."""
        own = network.rpartition("_")[2]
        settings = {own: settings} if own in PARTS else settings
        depth, image = settings.get("estd", {}), settings.get("esti", {})
        norm = depth.get("batchnorm", settings.get("batchnorm", ""))
        return {"depth_channels": depth.get("feature_channels", 32),
                "max_disparity": depth.get("maxdisp", 12),
                "image_channels": image.get("width", 128) // 4,
                "batch_statistics": "batch statistics" in norm}

    def build(self, settings: Mapping[str, Any], network: str) -> torch.nn.Module:
        wanted = self.arguments(settings, network)
        if network == "dddnet_estd":
            return DepthNetwork(channels=wanted["depth_channels"], max_disparity=wanted["max_disparity"],
                                batch_statistics=wanted["batch_statistics"]).eval()
        if network == "dddnet_esti":
            return ImageNetwork(channels=wanted["image_channels"]).eval()
        return super().build(settings, network)

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not DDDNet's.

        The number of disparities leaves no trace in the weights; 12 is assumed.
        """
        if all(any(key.startswith(part + ".") for key in shapes) for part in PARTS):
            found = [self.recognise({k.removeprefix(part + "."): v for k, v in shapes.items()
                                     if k.startswith(part + ".")}) for part in PARTS]
            settings = {part: one[1] for part, one in zip(PARTS, found) if one is not None}
            return ("dddnet", settings) if len(settings) == len(PARTS) else None
        if "matching.deconv1a.conv2.conv.weight" in shapes and "features.start.0.conv.weight" in shapes:
            return "dddnet_estd", {"maxdisp": 12, "cost_levels": 4,
                                   "feature_channels": shapes["feature.start.0.conv.weight"][0]}
        if "cam_attention.gamma" in shapes and "decoderd.layer24.weight" in shapes:
            return "dddnet_esti", {"width": shapes["down.conv.weight"][0]}
        return None

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
        """Return the official state dict of each part, {"estd": ..., "esti": ...}, for a `DDDNet`'s."""
        return {part: {k.removeprefix(part + "."): v for k, v in state.items() if k.startswith(part + ".")}
                for part in PARTS}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        left, right = inputs["left"], inputs["right"]
        if network == "dddnet_estd":
            return {"blur_disp": model(left, right)}
        if network == "dddnet_esti":
            return dict(zip(("image", "disp"), model(left, right, inputs["blur_disp"])))
        blur = model.estd(left, right)
        return {"blur_disp": blur, **dict(zip(("image", "disp"), model.esti(left, right, blur)))}
