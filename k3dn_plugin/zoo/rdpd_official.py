"""The released RDPD checkpoints: Keras files, whose layers are matched by order, not by name."""
import numpy as np
import torch

from k3dn_plugin.archs.rdpd_arch import LEVELS
from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.official import OfficialNetwork, register_official

RECURRENT = "recurrent_kernel"


def tensors_in_order():
    """`(our key, last part of the Keras name, Keras layer)` of every tensor, in Keras's order.

    The released files may name layers otherwise; the names here are those of the stated versions, whose
    count runs over the pooling and upsampling layers too.
    """
    rows, count = [], 0

    def layer(ours):
        nonlocal count
        name = f"time_distributed_{count}" if count else "time_distributed"
        count += 1
        rows.extend([(f"{ours}.weight", "kernel", name), (f"{ours}.bias", "bias", name)])

    for i in range(LEVELS):
        layer(f"encoder.{i}.0")
        layer(f"encoder.{i}.2")
        count += 1  # pooling
    layer("bottom")
    rows += [("lstm.conv_x.weight", "kernel", "conv_lst_m2d"),
             ("lstm.conv_h.weight", RECURRENT, "conv_lst_m2d"), ("lstm.conv_x.bias", "bias", "conv_lst_m2d")]
    for i in range(LEVELS):
        count += 1  # upsampling
        layer(f"up.{i}")
        layer(f"decoder.{i}.0")
        layer(f"decoder.{i}.2")
    layer("colours")
    layer("out")
    return rows


@register_official
class RDPDOfficial(OfficialNetwork):
    """`rdpd`: RDPD and RDPD+ are the same network."""

    networks = ("rdpd",)
    arch = "RDPD"

    def arguments(self, settings, network):
        output = settings.get("output_activation", "linear, clipped to [0,1]")
        return {"width": settings["widths"][0], "radial": settings["in_channels"] == 7,
                "output": "sigmoid" if "sigmoid" in output else "clip",
                "dropout": float(settings.get("dropout", 0.4))}

    def recognise(self, shapes):
        """`(network, settings)` from the shapes of a Keras file's tensors in order, or None if not RDPD's.

        Whether the last layer clips or has a sigmoid leaves no trace; the published clip is assumed.
        """
        if len(shapes) != len(tensors_in_order()) or not any(RECURRENT in key for key in shapes):
            return None
        *_, channels, width = next(iter(shapes.values()))
        return "rdpd", {"in_channels": channels, "widths": [width * 2 ** i for i in range(LEVELS + 1)]}

    def convert(self, tensors, network):
        """Ours from Keras tensors in Keras's order (layers without weights left out).

        Raises:
            CheckpointError: there are more or fewer of them, or in another order.
        """
        rows = tensors_in_order()
        kinds = [key.split("/")[-1].split(":")[0] for key in tensors]
        if kinds != [kind for _, kind, _ in rows]:
            wrong = next((i for i, (k, row) in enumerate(zip(kinds, rows)) if k != row[1]), len(rows))
            found = list(tensors)[wrong] if wrong < len(tensors) else "nothing"
            raise CheckpointError(
                f"official RDPD weights: expected {len(rows)} tensors in Keras's order; found {len(kinds)}, "
                f"of which number {wrong + 1} is {found}. Is it a whole-model file of RDPD?")
        state = {}
        for (ours, kind, _), value in zip(rows, tensors.values()):
            value = np.asarray(value)
            state[ours] = torch.as_tensor(np.array(value if kind == "bias" else value.transpose(3, 2, 0, 1),
                                                   order="C"))
        return state

    def to_official(self, state):
        """The Keras tensors of ours, in order: {layer/kind:0: array, kernels as H, W, in, out}."""
        official = {}
        for ours, kind, layer in tensors_in_order():
            value = state[ours].detach().cpu().numpy()
            official[f"{layer}/{kind}:0"] = value if kind == "bias" else value.transpose(2, 3, 1, 0)
        return official

    def outputs(self, model, inputs, network):
        return {"images": model.run(inputs["x"])[0]}
