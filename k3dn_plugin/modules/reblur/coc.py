"""BaMBNet's half-aperture kernels as a reblur module: the sharp image blurred by the radius of each pixel."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.coc_kernels import MAX_RADIUS, blur_by_radius
from k3dn_plugin.modules.reblur.estimator import BlurEstimator, predicted_map
from k3dn_plugin.modules.reblur.guidance import ImageChoice, ReblurGuidance, check_image, image_to_blur
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class CoCReblur(nn.Module):
    """Blur the sharp image into both views with half-disc kernels of a signed circle of confusion.

    The kernels are those of BaMBNet (Liang et al., 2022, section III-B), which uses them to compare the views with
    each other; blurring the sharp image with them is the same model applied once, and needs no second kernel.

    Beyond the border the image goes on as its outermost pixels.

    Args:
        predicted: key of the restorer's map of signed radii in pixels (`coc` of BaMBNet, three channels in
            blue, green, red); None estimates one from the views, which works beside any restorer.
        max_radius: largest radius in pixels.
        image: which image is blurred, "sharp" or "restored"; "auto" takes the restored one where the blur is
            estimated here, without which the loss would not reach the restorer (`image_to_blur`).
    """

    def __init__(self, *, predicted: str | None = None, max_radius: int = 12,
                 image: ImageChoice = "auto"):
        super().__init__()
        if not 1 <= max_radius <= MAX_RADIUS:
            raise OptionError(f"CoCReblur.max_radius: expected 1 to {MAX_RADIUS} pixels, found {max_radius}")
        check_image(image, "CoCReblur")
        self.predicted, self.max_radius = predicted, max_radius
        self.image: ImageChoice = image
        self.estimator: Any = BlurEstimator(max_radius) if predicted is None else None

    def forward(self, sharp: torch.Tensor, guidance: ReblurGuidance) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> `left` and `right`, of the same shape.

        Raises:
            OptionError: the restorer does not predict `predicted`.
        """
        if self.predicted is None:
            radius = self.estimator(guidance.batch["lq"])
        else:
            radius = predicted_map(guidance.prediction, self.predicted, "CoCReblur").flip(1)
            radius = radius.clamp(-self.max_radius, self.max_radius)
        image = image_to_blur(self.image, sharp, guidance, estimated=self.estimator is not None)
        border = self.max_radius
        image, radius = (F.pad(x, (border,) * 4, mode="replicate") for x in (image, radius))
        # Filters correlate; a view is the sharp image convolved with its kernel, hence the mirrored ramps.
        views = {view: blur_by_radius(image, radius, rising=rising, max_radius=self.max_radius)
                 for view, rising in (("left", False), ("right", True))}
        return {view: blurred[..., border:-border, border:-border] for view, blurred in views.items()}
