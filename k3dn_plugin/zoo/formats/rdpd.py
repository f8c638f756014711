"""The released RDPD checkpoints: Keras files, whose layers are matched by order, not by name."""
from collections.abc import Mapping
from typing import Any

import torch

from k3dn_plugin.archs.rdpd_arch import LEVELS
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.formats.keras_order import KerasNetwork, KerasTensor

RECURRENT = "recurrent_kernel"


def tensors_in_order() -> list[KerasTensor]:
    """Return every tensor, in Keras's order.

    The released files may name layers otherwise; the names here are those of the stated versions, whose
    count runs over the pooling and upsampling layers too.
    """
    rows: list[KerasTensor] = []
    count = 0

    def layer(ours: str) -> None:
        nonlocal count
        name = f"time_distributed_{count}" if count else "time_distributed"
        count += 1
        rows.extend([KerasTensor(f"{ours}.weight", "kernel", name),
                     KerasTensor(f"{ours}.bias", "bias", name)])

    for i in range(LEVELS):
        layer(f"encoder.{i}.0")
        layer(f"encoder.{i}.2")
        count += 1  # pooling
    layer("bottom")
    rows += [KerasTensor(f"lstm.{ours}", kind, "conv_lst_m2d")
             for ours, kind in (("conv_x.weight", "kernel"), ("conv_h.weight", RECURRENT),
                                ("conv_x.bias", "bias"))]
    for i in range(LEVELS):
        count += 1  # upsampling
        layer(f"up.{i}")
        layer(f"decoder.{i}.0")
        layer(f"decoder.{i}.2")
    layer("colours")
    layer("out")
    return rows


@FORMATS.register_module()
class RDPDOfficial(KerasNetwork):
    """`rdpd`: RDPD and RDPD+ are the same network."""

    networks = ("rdpd",)
    arch = "RDPD"
    tensors_in_order = staticmethod(tensors_in_order)

    def arguments(self, settings: Mapping[str, Any], network: str) -> dict[str, Any]:
        output = settings.get("output_activation", "linear, clipped to [0,1]")
        return {"width": settings["widths"][0], "radial": settings["in_channels"] == 7,
                "output": "sigmoid" if "sigmoid" in output else "clip",
                "dropout": float(settings.get("dropout", 0.4))}

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
        """Return `(network, settings)` from the shapes of a Keras file's tensors in order, or None if not RDPD's.

        Whether the last layer clips or has a sigmoid leaves no trace; the published clip is assumed.
        """
        if len(shapes) != len(tensors_in_order()) or not any(RECURRENT in key for key in shapes):
            return None
        *_, channels, width = next(iter(shapes.values()))
        return "rdpd", {"in_channels": channels, "widths": [width * 2 ** i for i in range(LEVELS + 1)]}

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor],
                network: str) -> dict[str, torch.Tensor]:
        return {"images": model.run(inputs["x"])[0]}
