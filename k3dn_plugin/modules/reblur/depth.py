"""DDDNet's reblurring: the views rendered anew from the sharp image and the disparity."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.fractional_box import box_mean
from k3dn_plugin.modules.reblur.estimator import BlurEstimator, predicted_map
from k3dn_plugin.modules.reblur.guidance import ImageChoice, ReblurGuidance, check_image, image_to_blur
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class DepthReblur(nn.Module):
    """Blur each pixel of the sharp image by a box as wide as half its disparity, to one side in each view.

    Pan et al. (DDDNet, CVPR 2021) tie depth to the captured views by such a reblur loss; its code was not
    released, so the form is ours: that of their simulator, with box filters of h + 1 pixels, h half the disparity,
    made fractional and gathered instead of spread, so that it is differentiable in the disparity. Rows are
    centered, where the simulator also shifts both views downwards.

    Args:
        predicted: key of the restorer's disparity map in pixels (`disparity_map` of DDDNet); None estimates
            one from the views, which works beside any restorer.
        max_disparity: largest magnitude in pixels.
        image: which image is blurred, "sharp" or "restored"; "auto" takes the restored one where the blur is
            estimated here, without which the loss would not reach the restorer (`image_to_blur`).
    """

    def __init__(self, *, predicted: str | None = None, max_disparity: float = 24.0,
                 image: ImageChoice = "auto"):
        super().__init__()
        if max_disparity <= 0:
            raise OptionError(f"DepthReblur.max_disparity: expected more than 0 pixels, found {max_disparity}")
        check_image(image, "DepthReblur")
        self.predicted, self.max_disparity = predicted, max_disparity
        self.image: ImageChoice = image
        self.estimator: Any = BlurEstimator(max_disparity) if predicted is None else None

    def forward(self, sharp: torch.Tensor, guidance: ReblurGuidance) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> `left` and `right`, of the same shape.

        With a positive disparity the content of the left view lies further right than that of the right view.

        Raises:
            OptionError: the restorer does not predict `predicted`.
        """
        if self.predicted is None:
            disparity = self.estimator(guidance.batch["lq"])
        else:
            disparity = predicted_map(guidance.prediction, self.predicted, "DepthReblur")
            disparity = disparity.clamp(-self.max_disparity, self.max_disparity)
        image = image_to_blur(self.image, sharp, guidance, estimated=self.estimator is not None)
        return rendered_views(image, disparity)


def rendered_views(sharp: torch.Tensor, disparity: torch.Tensor) -> dict[str, torch.Tensor]:
    """Both views of a sharp image (B, 3, H, W) with a disparity (B, 1, H, W) in pixels; zero changes nothing."""
    height, width = sharp.shape[-2:]
    # Not in half precision: positions in a large image need more digits.
    half = (disparity if disparity.dtype == torch.float64 else disparity.float()) / 2
    row = torch.arange(height, device=sharp.device, dtype=half.dtype)[:, None]
    column = torch.arange(width, device=sharp.device, dtype=half.dtype)
    forward, backward = F.relu(half), F.relu(-half)
    top, bottom = row - half.abs() / 2, row + 1 + half.abs() / 2
    # A point spreads to its right in the left view, so a pixel there gathers from its left.
    return {"left": box_mean(sharp, top, bottom, column - forward, column + 1 + backward),
            "right": box_mean(sharp, top, bottom, column - backward, column + 1 + forward)}
