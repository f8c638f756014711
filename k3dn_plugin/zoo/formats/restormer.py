"""The released Restormer checkpoints: a state dict under `params`, dual-pixel or single-image."""
import re

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.formats.base import OfficialNetwork, register_official
from k3dn_plugin.zoo.formats.key_map import KeyMap

LEVELS = 4


def key_pairs():
    """Official prefix, without the wrappers called `body`, -> ours (specs of Restormer, section 4)."""
    pairs = {"patch_embed.proj": "embed", "latent": f"encoder.{LEVELS - 1}",
             "skip_conv": "skip", "output": "out"}
    for level in range(1, LEVELS):
        inwards, outwards = level - 1, LEVELS - 1 - level
        pairs[f"encoder_level{level}"] = f"encoder.{inwards}"
        pairs[f"decoder_level{level}"] = f"decoder.{outwards}"
        pairs[f"down{level}_{level + 1}"] = f"down.{inwards}"
        pairs[f"up{level + 1}_{level}"] = f"up.{outwards}"
        if level > 1:
            pairs[f"reduce_chan_level{level}"] = f"reduce.{outwards}"
    return pairs


@register_official
class RestormerOfficial(OfficialNetwork):
    """`restormer`: dual-pixel and single-image defocus deblurring, and the other networks of its size."""

    networks = ("restormer",)
    arch = "Restormer"
    keys = KeyMap(key_pairs())

    def arguments(self, settings, network):
        channels, dual = settings["inp_channels"], settings["dual_pixel_task"]
        if (channels, settings["out_channels"]) != (6 if dual else 3, 3):
            raise CheckpointError(
                f"Restormer with {channels} channels in, {settings['out_channels']} out and dual_pixel_task "
                f"{dual}: only 6 in (dual-pixel) or 3 in (single image), 3 out, are supported")
        return {"dual_pixel": dual, "width": settings["dim"], "blocks": list(settings["num_blocks"]),
                "refinement_blocks": settings["num_refinement_blocks"], "heads": list(settings["heads"]),
                "expansion": settings["ffn_expansion_factor"], "bias": settings["bias"],
                "norm_bias": settings["LayerNorm_type"] != "BiasFree"}

    def recognise(self, shapes):
        """`(network, settings)` from the shapes of an official state dict, or None if it is not Restormer's.

        The expansion is the shortest decimal that gives the widths found (2.66 for the published ones).
        """
        if "patch_embed.proj.weight" not in shapes or "refinement.0.attn.temperature" not in shapes:
            return None
        width, channels = shapes["patch_embed.proj.weight"][:2]
        stages = [f"encoder_level{level}" for level in range(1, LEVELS)] + ["latent"]
        hidden, deepest = shapes["latent.0.ffn.project_out.weight"][1], width * 2 ** (LEVELS - 1)
        return "restormer", {
            "inp_channels": channels, "out_channels": shapes["output.weight"][0], "dim": width,
            "num_blocks": [_count(shapes, stage) for stage in stages],
            "num_refinement_blocks": _count(shapes, "refinement"),
            "heads": [shapes[f"{stage}.0.attn.temperature"][0] for stage in stages],
            "ffn_expansion_factor": _expansion(hidden, deepest),
            "bias": "output.bias" in shapes,
            "LayerNorm_type": "WithBias" if "latent.0.norm1.body.bias" in shapes else "BiasFree",
            "dual_pixel_task": "skip_conv.weight" in shapes}

    def rename(self, key):
        return self.keys.ours(key.replace(".body.0.", ".").replace(".body.", "."))

    def to_official(self, state):
        """The official state dict for ours."""
        return {re.sub(r"((?:down|up)\d_\d)\.", r"\1.body.0.",
                       re.sub(r"(norm\d)\.", r"\1.body.", self.keys.official(key))): value
                for key, value in state.items()}

    def outputs(self, model, inputs, network):
        return {"restored": model.restore(inputs["lq"])}


def _count(shapes, stage):
    """Blocks of a stage."""
    return len({key.split(".")[1] for key in shapes if key.startswith(f"{stage}.")})


def _expansion(hidden, width):
    """The shortest decimal whose product with `width` truncates to `hidden`."""
    middle = (hidden + 0.5) / width
    return next((short for short in (round(middle, digits) for digits in range(1, 6))
                 if int(width * short) == hidden), middle)
