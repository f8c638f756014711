"""The released K3DN checkpoints: a plain state dict, with or without the preservation blocks (`srp.`)."""
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.base import OfficialNetwork
from k3dn_plugin.zoo.formats.key_map import KeyMap


def key_pairs(encoder_blocks: int, deblur_blocks: int, preservation_blocks: int) -> dict[str, str]:
    """Official prefix -> ours (`docs/networks/k3dn.md`, sections 2, 3, 5 and 6)."""
    pairs = {"out.main.0": "out", "disp.fc.0": "disparity.pooling.project"}
    for i in range(3):
        pairs[f"feat_extract.{i}.main.0"] = f"down.{i}"
        pairs[f"feat_extract.{i + 3}.main.0"] = f"up.{i}"
        for theirs, ours in (("Encoder", "encoder"), ("Decoder", "decoder")):
            pairs.update(_residual(f"{theirs}.{i}", f"{ours}.{i}", encoder_blocks))
        for name in ("conv_q", "conv_k", "conv_v", "conv_o.0", "conv_o.2"):
            pairs[f"srp.{i}.{name}"] = f"preservation.{i}.{name}"
        pairs.update(_residual(f"srp.{i}.conv_o.1", f"preservation.{i}.conv_o.1", preservation_blocks))
    for i in range(deblur_blocks):
        pairs.update(_kernel_set(f"deblur.{i}", f"deblur.blocks.{i}"))
    conv_norms = {f"matching.start.{i}": f"matching.{i}" for i in range(3)}
    conv_norms.update({f"matching.conv1a.{i}": f"matching.{i + 3}" for i in range(2)})
    for i in range(2):
        conv_norms[f"feature.start.{i}"] = f"features.start.{i}"
        conv_norms[f"feature.layer1.{i}"] = f"features.dilated.{i}"
    conv_norms["feature.end.0"] = "features.join"
    for theirs, ours in conv_norms.items():
        pairs[f"disp.{theirs}.conv"] = f"disparity.{ours}.conv"
        pairs[f"disp.{theirs}.bn"] = f"disparity.{ours}.norm"
    for theirs, ours in (("branch1", 0), ("branch3", 1)):
        pairs[f"disp.feature.{theirs}.1.0"] = f"disparity.features.branches.{ours}.conv"
        pairs[f"disp.feature.{theirs}.1.1"] = f"disparity.features.branches.{ours}.norm"
    pairs["disp.feature.end.1.conv"] = "disparity.features.out"
    return pairs


def _residual(theirs: str, ours: str, count: int) -> dict[str, str]:
    return {f"{theirs}.layers.{i}.main.{j}.main.0": f"{ours}.{i}.conv{j + 1}"
            for i in range(count) for j in range(2)}


def _kernel_set(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.conv1.weight": f"{ours}.spectra",
            **{f"{theirs}.conv2.{n}": f"{ours}.mixing.{n}"
               for n in ("lower", "log_s", "upper", "p", "sign_s")},
            f"{theirs}.conv2.modulation.weight": f"{ours}.query.logits",
            f"{theirs}.conv2.modulation.bias": f"{ours}.query.logits_bias",
            f"{theirs}.inter.to_w": f"{ours}.query.summary",
            f"{theirs}.inter.to_r": f"{ours}.query.to_kernels",
            f"{theirs}.inter.out": f"{ours}.query.to_vector"}


@FORMATS.register_module()
class K3DNOfficial(OfficialNetwork):
    """Both released networks: `k3dn` with sharp-region preservation, `k3dn_base` without."""

    networks = ("k3dn", "k3dn_base")
    arch = "K3DN"
    # More blocks than any published size has; unused pairs do no harm.
    keys = KeyMap(key_pairs(64, 64, 64))

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        if settings.get("in_channels", 6) != 6:
            raise CheckpointError(f"K3DN with in_channels {settings['in_channels']}: only the dual-pixel "
                                  "network, of 6 channels, is published; its single-image form is not")
        preservation = None
        if network == "k3dn":
            preservation = {"type": "SharpRegionPreservation", "blocks": settings["psf_out_layer"],
                            "radius": settings.get("srp_window", 9) // 2}
        return {"base_channels": settings["base_channel"], "encoder_blocks": settings["ed_res"],
                "window": list(settings["window_size"]), "vector_size": settings["style_dim"],
                "disparity": {"type": "CostVolumeDisparity", "max_disparity": settings["maxdisp"]},
                "deblur": {"type": "KernelSetDeblur", "blocks": settings["ld_res"],
                           "kernel_size": settings["kernel_size"],
                           "spectrum_size": settings["fdomain_size"],
                           "truncate": float(settings["truncate"])},
                "preservation": preservation}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of an official state dict, or None if it is not K3DN's.

        The window size leaves no trace in the weights; the published 18 x 14 is assumed.
        """
        if "deblur.0.conv1.weight" not in shapes or "feat_extract.0.main.0.weight" not in shapes:
            return None
        network = "k3dn" if any(key.startswith("srp.") for key in shapes) else "k3dn_base"
        spectra = shapes["deblur.0.conv1.weight"]
        settings = {"base_channel": shapes["feat_extract.0.main.0.weight"][0],
                    "ed_res": _count(shapes, r"Encoder\.0\.layers\.(\d+)\."),
                    "ld_res": _count(shapes, r"deblur\.(\d+)\."), "truncate": 100, "window_size": [18, 14],
                    "style_dim": shapes["disp.fc.0.weight"][0], "maxdisp": 12,
                    "kernel_size": shapes["deblur.0.inter.to_w"][-2], "fdomain_size": spectra[-3]}
        if network == "k3dn":
            settings["psf_out_layer"] = _count(shapes, r"srp\.0\.conv_o\.1\.layers\.(\d+)\.")
            settings["srp_window"] = round(shapes["srp.0.conv_v.weight"][1] ** 0.5)
        return network, settings

    def convert(self, tensors: Mapping[str, np.ndarray], network: str) -> dict[str, torch.Tensor]:
        state = super().convert(tensors, network)
        for key, value in state.items():
            if key.endswith(("spectra", "query.summary")):
                state[key] = value.reshape(value.shape[1], *value.shape[3:])
        return state

    def to_official(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the official state dict of ours: names and shapes as in the released files."""
        official: dict[str, torch.Tensor] = {}
        for key, value in state.items():
            if key.endswith(("spectra", "query.summary")):
                value = value[None, :, None]
            official[self.keys.official(key)] = value
        return official

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        views = torch.cat([inputs["left"], inputs["right"]], 1)
        disparity = model.estimate_disparity(views)
        sharp = torch.cat([inputs["sharp"], inputs["sharp"]], 1)
        return {"disparity": disparity.vectors,
                "deblur_s5": model.core(views, disparity)[:, :, ::5, ::5],
                "reblur_s5": model.core(sharp, disparity, reverse=True)[:, :, ::5, ::5]}


def _count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern` finds."""
    return 1 + max(int(found.group(1)) for found in (re.match(pattern, key) for key in keys) if found)
