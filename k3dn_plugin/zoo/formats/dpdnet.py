"""The released DPDNet checkpoints: Keras files, whose layers are matched by order, not by name."""
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.archs.dpdnet_arch import LEVELS
from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.keras_order import KerasNetwork, KerasTensor, kind_of


def layers_in_order() -> list[tuple[str, int]]:
    """`(our prefix, kernel size)` of each convolution in Keras's order (`docs/networks/dpdnet.md`, section 2)."""
    rows = [(f"encoder.{level}.{i}", 3) for level in range(LEVELS + 1) for i in (0, 2)]
    for level in range(LEVELS):
        rows += [(f"up.{level}", 2), (f"decoder.{level}.0", 3), (f"decoder.{level}.2", 3)]
    return [*rows, ("colours", 3), ("out", 1)]


def tensors_in_order() -> list[KerasTensor]:
    """Return every tensor, with the names that Keras 2.2.4 gives in a fresh session."""
    return [KerasTensor(f"{ours}.{last}", kind, f"conv2d_{number}")
            for number, (ours, _) in enumerate(layers_in_order(), 1)
            for last, kind in (("weight", "kernel"), ("bias", "bias"))]


@FORMATS.register_module()
class DPDNetOfficial(KerasNetwork):
    """`dpdnet`: dual-pixel (6 channels in) and single-image (3)."""

    networks = ("dpdnet",)
    arch = "DPDNet"
    tensors_in_order = staticmethod(tensors_in_order)

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        views, widths = settings["in_channels"], list(settings["widths"])
        if (views, settings.get("out_channels", 3)) not in ((6, 3), (3, 3)):
            raise CheckpointError(f"DPDNet with {views} channels in and {settings['out_channels']} out: only "
                                  "6 in (dual-pixel) or 3 in (single image), 3 out, are supported")
        if widths != [widths[0] * 2 ** level for level in range(LEVELS + 1)]:
            raise CheckpointError(f"DPDNet with widths {widths}: each level must be twice as wide as the one "
                                  "before, in five levels")
        return {"dual_pixel": views == 6, "width": widths[0], "dropout": float(settings.get("dropout", 0.4))}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of a Keras file's tensors in order; None if not DPDNet's."""
        kernels = [tuple(shape) for key, shape in shapes.items() if kind_of(key) == "kernel"]
        if [shape[:2] for shape in kernels] != [(size, size) for _, size in layers_in_order()]:
            return None
        if len(shapes) != 2 * len(kernels):
            return None
        *_, channels, width = kernels[0]
        return "dpdnet", {"in_channels": channels, "out_channels": kernels[-1][-1],
                          "widths": [width * 2 ** level for level in range(LEVELS + 1)]}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        return {"image": model.restore(inputs["x"])}
