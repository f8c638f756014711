"""The released BaMBNet checkpoints: the deblurring network, and the CoC network with the same keys."""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from k3dn_plugin.layers.branch_network import STAGES, CoCNetwork
from k3dn_plugin.layers.coc_kernels import cross_blur, gaussian_smooth
from k3dn_plugin.layers.filters import total_variation
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork

NETWORK = "network."


class CrossBlurCheck(nn.Module):
    """The settings of the published reblurring constraint, which has no weights."""

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__()
        self.settings = settings


@FORMATS.register_module()
class BaMBNetOfficial(OfficialNetwork):
    """`bambnet`, `bambnet_coc`, and `bambnet_reblur`, the constraint that trains the latter."""

    networks = ("bambnet", "bambnet_coc", "bambnet_reblur")
    arch = "BaMBNet"

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        return {"width": settings["width"], "reduction": settings["ca_reduction"],
                "blocks": [n for n in settings["branch_rcabs"] if n],
                "mask_iterations": settings.get("mask_iterations", 20000),
                "mask_thresholds": list(settings.get("mask_thresholds", (0.0, 1.9, 4.2, 6.2)))[1:]}

    def build(self, settings: Mapping[str, Any], network: str) -> torch.nn.Module:
        if network == "bambnet_reblur":
            return CrossBlurCheck(settings)
        if network == "bambnet_coc":
            wanted = self.arguments(settings, network)
            return CoCNetwork(**{k: wanted[k] for k in ("width", "blocks", "reduction")}).eval()
        return super().build(settings, network)

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not BaMBNet's.

        The CoC network has the same keys and shapes; the deblurring network is assumed.
        """
        if not {"head.0.weight", "tail_hard.0.weight",
                f"layer{STAGES}.1.0.body.0.body.0.weight"} <= set(shapes):
            return None
        blocks: list[int] = []
        while (prefix := f"layer1.{len(blocks) + 1}.0.body.") + "0.body.0.weight" in shapes:
            blocks.append(sum(key.startswith(prefix) and key.endswith(".body.0.weight") for key in shapes))
        width = shapes["head.0.weight"][0]
        squeezed = shapes["layer1.1.0.body.0.body.3.conv_du.0.weight"][0]
        return "bambnet", {"width": width, "branch_rcabs": [0, *blocks], "ca_reduction": width // squeezed}

    def rename(self, key: str) -> str:
        return NETWORK + key

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        state = super().convert(tensors, network)
        if network == "bambnet":
            # The official file does not store how far the masks have faded.
            state["mask_step"] = torch.zeros((), dtype=torch.int64)
        return state

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official keys of the deblurring or the CoC network, for a state dict of ours."""
        return {k.removeprefix(NETWORK): v for k, v in state.items() if k.startswith(NETWORK)}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        if network == "bambnet_reblur":
            return self._constraint(model.settings, inputs)
        views = inputs["x"][:, :6]
        if network == "bambnet_coc":
            return {"coc": model(views)}
        if "coc" not in inputs:
            return {"image": model.restore(views)}
        return {f"image_iter{step}": torch.sigmoid(model.network(views, model.shares(
            inputs["coc"], torch.tensor(step)))) for step in (0, 10000)}

    def _constraint(self, settings: Mapping[str, Any], inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        radius, views = inputs["coc"], inputs["x"]
        left, right = cross_blur(views[:, :3], views[:, 3:6], radius, max_radius=settings["max_radius"])
        size, sigma = settings["gauss"]
        distance = gaussian_smooth(left - right, size=size, sigma=sigma).abs().mean()
        return {"reblur_left": left, "reblur_right": right,
                "loss_reblur": (settings["weight_reblur"] * distance).reshape(1),
                "loss_tv": (settings["weight_tv"] * total_variation(radius)).reshape(1)}
