"""DMENet's loss on its defocus maps, for data that knows the blur."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.losses.base import look_up
from k3dn_plugin.registry import LOSSES

LARGEST_BLUR = 15  # pixels of diameter that the map's 1 stands for


@LOSSES.register_module()
class DefocusMapLoss(nn.Module):
    """Mean squared difference of the predicted and the true defocus map, on every scale (DMENet, section 4).

    Reads `defocus` (B, 1, H, W) and the list `defocus_scales` of the prediction, and `defocus` of the batch,
    a signed blur radius r in pixels. The map that it stands for is (|r| + 1) / 15: a disc of radius r
    has the variance of a Gaussian of r / 2, and the network's map is (2 sigma + 1) / 15.

    Args:
        weight: factor on the sum.
        auxiliary: factor on the smaller scales, 1 as published.
    """

    reads = ("defocus", "defocus_scales")

    def __init__(self, *, weight: float = 1.0, auxiliary: float = 1.0):
        super().__init__()
        self.weight, self.auxiliary = weight, auxiliary

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted sum over all scales."""
        predicted = look_up(prediction, "defocus", self, "the network's prediction")
        radius = look_up(batch, "defocus", self, "the batch")
        truth = ((radius.abs() + 1) / LARGEST_BLUR).clamp(max=1)
        total = F.mse_loss(predicted, truth)
        for scale in prediction.get("defocus_scales", []):
            size = scale.shape[-2:]
            small = truth if truth.shape[-2:] == size else F.interpolate(truth, size=size, mode="nearest")
            total = total + self.auxiliary * F.mse_loss(scale, small)
        return self.weight * total
