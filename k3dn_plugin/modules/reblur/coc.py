"""BaMBNet's half-aperture kernels as a reblur module: the sharp image blurred by the radius of each pixel."""
import torch
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.kernels.coc_kernels import MAX_RADIUS, blur_by_radius
from k3dn_plugin.modules.reblur.estimator import BlurEstimator, predicted_map
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class CoCReblur(nn.Module):
    """Blur the sharp image into both views with half-disc kernels of a signed circle of confusion.

    The kernels are those of BaMBNet (Liang et al., 2022, section III-B), which uses them to compare the views with
    each other; blurring the sharp image with them is the same model applied once, and needs no second kernel.

    Args:
        predicted: key of the restorer's map of signed radii in pixels (`coc` of BaMBNet, three channels in
            blue, green, red); None estimates one from the views, which works beside any restorer.
        max_radius: largest radius in pixels.
    """

    def __init__(self, *, predicted: str | None = None, max_radius: int = 12):
        super().__init__()
        if not 1 <= max_radius <= MAX_RADIUS:
            raise OptionError(f"CoCReblur.max_radius: expected 1 to {MAX_RADIUS} pixels, found {max_radius}")
        self.predicted, self.max_radius = predicted, max_radius
        self.estimator = BlurEstimator(max_radius) if predicted is None else None

    def forward(self, sharp: torch.Tensor, guidance: ReblurGuidance) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> `left` and `right`, of the same shape.

        Raises:
            OptionError: the restorer does not predict `predicted`.
        """
        if self.estimator is not None:
            radius = self.estimator(guidance.batch["lq"])
        else:
            radius = predicted_map(guidance.prediction, self.predicted, "CoCReblur").flip(1)
            radius = radius.clamp(-self.max_radius, self.max_radius)
        # Filters correlate; a view is the sharp image convolved with its kernel, hence the mirrored ramps.
        return {"left": blur_by_radius(sharp, radius, rising=False, max_radius=self.max_radius),
                "right": blur_by_radius(sharp, radius, rising=True, max_radius=self.max_radius)}
