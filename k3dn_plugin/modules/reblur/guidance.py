"""What a reblur module may look at."""
from dataclasses import dataclass
from typing import Any, Literal

import torch

from k3dn_plugin.errors import OptionError

ImageChoice = Literal["auto", "sharp", "restored"]


@dataclass(frozen=True)
class ReblurGuidance:
    """The training step around a reblur module.

    Attributes:
        batch: the batch, with `lq`, `center` and `gt` in [0, 1].
        prediction: what the restorer's `training_outputs` gave, e.g. its `disparity`.
        restorer: the network itself.
    """

    batch: dict[str, Any]
    prediction: dict[str, Any]
    restorer: Any


def check_image(image: str, module: str) -> None:
    """Raise `OptionError` unless the setting `image` of a reblur module is one of its choices."""
    if image not in ("auto", "sharp", "restored"):
        raise OptionError(f"{module}.image: expected 'auto', 'sharp' or 'restored', found {image!r}")


def image_to_blur(image: ImageChoice, sharp: torch.Tensor, guidance: ReblurGuidance, *,
                  estimated: bool) -> torch.Tensor:
    """Return the image that a reblur module blurs: the sharp one, or what the restorer made of its views.

    Where the restorer predicts the blur, the loss of the reblurred sharp image reaches it by way of that
    prediction. Where the reblur module estimates the blur itself, only the restored image leads back to the
    restorer: blurred again, it must give what was captured. "auto" chooses accordingly.

    Args:
        image: the module's setting.
        sharp: (B, 3, H, W), the all-in-focus image.
        guidance: of this step.
        estimated: whether the module estimates the blur itself.
    """
    restored = estimated if image == "auto" else image == "restored"
    return guidance.prediction["restored"] if restored else sharp
