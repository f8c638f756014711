"""What disparity must explain without labels: one view warped or blurred into the other."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.coc_kernels import cross_blur, gaussian_smooth
from k3dn_plugin.losses.base import look_up
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class DisparityWarpLoss(nn.Module):
    """Mean squared difference of the right view, warped by its estimated disparity, and the left view.

    Reads `warped_right` and `small_left` of the prediction (Lee et al., IFAN, section 3.3, equation 4).

    Args:
        weight: factor on the distance.
    """

    reads = ("warped_right", "small_left")

    def __init__(self, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted distance."""
        warped, left = (look_up(prediction, key, self, "the network's prediction")
                        for key in ("warped_right", "small_left"))
        return self.weight * F.mse_loss(warped, left)


@LOSSES.register_module()
class CrossBlurLoss(nn.Module):
    """Each view blurred with the other's kernel must agree: trains a circle of confusion without labels.

    Mean absolute difference, smoothed by a small Gaussian, of the left view blurred by the right half-
    aperture kernel of the predicted radius and the right view blurred by the left one (Liang et al., BaMBNet,
    section III-B).

    Args:
        weight: factor; 1000 as published.
        predicted: key of the signed radius (B, 3 or 1, H, W) in pixels, colors in the order of the views.
    """

    def __init__(self, *, weight: float = 1000.0, predicted: str = "coc"):
        super().__init__()
        self.weight, self.predicted = weight, predicted
        self.reads = (predicted.split(".")[0],)

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted distance."""
        radius = look_up(prediction, self.predicted, self, "the network's prediction")
        # The network's maps are in blue, green, red, as its views are.
        left, right = batch["lq"][:, :3].flip(1), batch["lq"][:, 3:].flip(1)
        left, right = cross_blur(left, right, radius)
        return self.weight * gaussian_smooth(left - right).abs().mean()


@LOSSES.register_module()
class TotalVariationLoss(nn.Module):
    """Sum of absolute differences of neighbouring values of a predicted map, over the whole batch.

    Args:
        weight: factor; 1e-5 as published for BaMBNet's circle of confusion.
        predicted: key of the map (B, C, H, W).
    """

    def __init__(self, *, weight: float = 1e-5, predicted: str = "coc"):
        super().__init__()
        self.weight, self.predicted = weight, predicted
        self.reads = (predicted.split(".")[0],)

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted sum."""
        values = look_up(prediction, self.predicted, self, "the network's prediction")
        return self.weight * (values.diff(dim=-1).abs().sum() + values.diff(dim=-2).abs().sum())
