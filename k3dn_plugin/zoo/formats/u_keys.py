"""Official key names that Restormer, LaKDNet and DiNAT-IR share, and what their shapes say."""
import re
from collections.abc import Mapping

LEVELS = 4


def level_pairs() -> dict[str, str]:
    """Return the official prefixes of a U of four levels -> ours, where the wrappers called `body` are left out."""
    pairs = {"latent": f"encoder.{LEVELS - 1}"}
    for level in range(1, LEVELS):
        inwards, outwards = level - 1, LEVELS - 1 - level
        pairs[f"encoder_level{level}"] = f"encoder.{inwards}"
        pairs[f"decoder_level{level}"] = f"decoder.{outwards}"
        pairs[f"down{level}_{level + 1}"] = f"down.{inwards}"
        pairs[f"up{level + 1}_{level}"] = f"up.{outwards}"
        if level > 1:
            pairs[f"reduce_chan_level{level}"] = f"reduce.{outwards}"
    return pairs


def without_body(key: str) -> str:
    """Return an official key without the wrappers called `body` around norms and size changes."""
    return key.replace(".body.0.", ".").replace(".body.", ".")


def with_body(key: str) -> str:
    """Return the official key for one without its wrappers."""
    return re.sub(r"((?:down|up)\d_\d)\.", r"\1.body.0.", re.sub(r"(norm\d)\.", r"\1.body.", key))


def stage_names() -> list[str]:
    """Return the official names of the encoder's stages, the innermost last."""
    return [f"encoder_level{level}" for level in range(1, LEVELS)] + ["latent"]


def count_blocks(shapes: Mapping[str, tuple[int, ...]], stage: str) -> int:
    """Return the number of blocks of a stage."""
    return len({key[len(stage) + 1:].split(".")[0] for key in shapes if key.startswith(f"{stage}.")})


def find_expansion(hidden: int, width: int) -> float:
    """Return the shortest decimal whose product with `width` truncates to `hidden` (2.66 in Restormer)."""
    middle = (hidden + 0.5) / width
    return next((short for short in (round(middle, digits) for digits in range(1, 6))
                 if int(width * short) == hidden), middle)
