"""The released DMENet checkpoint: named TensorFlow variables of the defocus-map network, and the settings
of the deconvolution, which has none.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from k3dn_plugin.archs.dmenet_arch import CONVS_PER_STAGE, LARGEST_BLUR
from k3dn_plugin.layers.hyper_laplacian import NonBlindDeconvolution, quantize
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap

SCOPE = "main_net/defocus_net/"
MOST_BLOCKS = 64
NAMES = {"kernel": "weight", "bias": "bias", "beta": "bias", "moving_mean": "running_mean",
         "moving_variance": "running_var"}
# Training checkpoints hold more than the test network: a second classifier, a discriminator.
TRAINING_ONLY = ("main_net/binary_net/", "discriminator/", *(
    f"{SCOPE}encoder/{name}/" for name in ("conv6_1", "c_logits_1", "c_logits_2")))


def key_pairs() -> dict[str, str]:
    """Official prefix (dots for slashes, `main_net.defocus_net` off) -> ours (`docs/networks/dmenet.md`, part A)."""
    pairs: dict[str, str] = {}

    def layer(block: str, theirs: str, ours: str) -> None:
        number = theirs[1:]
        pairs[f"decoder.{block}.c{number}"] = f"{ours}.conv"
        pairs[f"decoder.{block}.b{number}"] = f"{ours}.norm"

    for s, count in enumerate(CONVS_PER_STAGE):
        for i in range(count):
            pairs[f"encoder.conv{s + 1}_{i + 1}"] = f"encoder.{s}.{2 * i}"
    for i, level in enumerate((3, 2, 1)):
        for j in range(3):
            layer(f"u{level}", f"c{j + 1}", f"up.{i}.{j}")
    for i, level in enumerate((4, 3, 2, 1, 0)):
        for j in range(2):
            layer(f"u{level}_aux", f"c{j + 1}", f"heads.{i}.{j}")
    layer("u0", "c_init", "entry")
    for i in range(MOST_BLOCKS):
        layer("u0", f"c_res{i}", f"refine.{i}.skip")
        for j in range(2):
            layer("u0", f"c{i}_{j + 1}", f"refine.{i}.body.{j}")
    for j in range(2):
        layer("uf", f"c{j + 1}", f"final.{j}")
    pairs["decoder.uf.c3"] = "final.2"
    return pairs


@FORMATS.register_module()
class DMENetOfficial(OfficialNetwork):
    """`dmenet`, the map's network, and `dmenet_deconv`, the deconvolution."""

    networks = ("dmenet", "dmenet_deconv")
    arch = "DMENet"
    keys = KeyMap(key_pairs())

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        return {"width": settings["encoder_channels"][0], "refine_blocks": settings["refine_blocks"]}

    def build(self, settings: Mapping[str, Any], network: str) -> torch.nn.Module:
        if network == "dmenet_deconv":
            model = NonBlindDeconvolution(
                fidelity=settings["lambda"], alpha=settings["alpha"], support=settings["kernel_size"],
                taper_passes=settings["edgetaper_passes"], beta_limit=settings["beta"][2])
            model.levels = settings["levels"]
            return model
        return super().build(settings, network)

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official file, or None if it is not DMENet's."""
        first = shapes.get(f"{SCOPE}encoder/conv1_1/kernel:0")
        if first is None or f"{SCOPE}decoder/uf/c3/kernel:0" not in shapes:
            return None
        blocks = 0
        while f"{SCOPE}decoder/u0/c_res{blocks}/kernel:0" in shapes:
            blocks += 1
        width = first[-1]
        return "dmenet", {"encoder_channels": [width, 2 * width, 4 * width, 8 * width, 8 * width],
                          "refine_blocks": blocks}

    def rename(self, key: str) -> str:
        *path, last = key.removeprefix(SCOPE).split(":")[0].split("/")
        return "network." + self.keys.ours(".".join([*path, NAMES.get(last, last)]))

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        """Return ours from TensorFlow variables; what only training used is left out."""
        state: dict[str, torch.Tensor] = {}
        for key, value in tensors.items():
            if key.startswith(TRAINING_ONLY):
                continue
            value = np.asarray(value)
            kernel = key.split(":")[0].endswith("/kernel")
            state[self.rename(key)] = torch.as_tensor(
                np.array(value.transpose(3, 2, 0, 1) if kernel else value, order="C"))
        return state

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Return {TensorFlow variable name: array}, kernels as H, W, in, out, for a `DMENet`'s state dict."""
        official: dict[str, np.ndarray] = {}
        for key, value in state.items():
            *path, last = self.keys.official(key.removeprefix("network.")).split(".")
            value = value.detach().cpu().numpy()
            if last == "weight":
                last, value = "kernel", value.transpose(2, 3, 1, 0)
            elif last == "bias" and path[-1].startswith("b"):
                last = "beta"
            else:
                last = {"running_mean": "moving_mean", "running_var": "moving_variance"}.get(last, last)
            official[SCOPE + "/".join([*path, last]) + ":0"] = value
        return official

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        if network == "dmenet_deconv":
            sigma = ((LARGEST_BLUR * inputs["defocus_map"] - 1) / 2).clamp(min=0)
            sigma = quantize(sigma, model.levels)
            return {"sigma": sigma, "output": model(inputs["image"], sigma)}
        defocus, auxiliary = model.network.with_auxiliary(inputs["image"])
        return {"defocus_map": defocus,
                **dict(zip(("aux16", "aux8", "aux4", "aux2", "aux1"), auxiliary))}
