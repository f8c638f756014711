"""The reblurring regularisation: what the estimated kernel makes of the sharp image is the blurred image."""
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.losses.base import look_up
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class ReblurConsistency(nn.Module):
    """Distance of the reblurred views to the captured ones (K3DN, reblurring regularisation module).

    Compares every view that the reblur module gives (`prediction["reblurred"]`: some of `left`,
    `right`, `center`) with the same view of the batch, and averages over the views. It needs no kernel
    or disparity truth. Views that are reblurred at a fraction of the size are compared with block means.

    Args:
        weight: factor on the mean distance.
        distance: "l1" or "mse". The paper does not say which; L1 is our assumption.
    """

    reads = ("reblurred",)

    def __init__(self, *, weight: float = 1.0, distance: Literal["l1", "mse"] = "l1"):
        super().__init__()
        choices = {"l1": F.l1_loss, "mse": F.mse_loss}
        if distance not in choices:
            raise OptionError(f"ReblurConsistency.distance: expected one of {', '.join(choices)}; "
                              f"found {distance!r}")
        self.weight = weight
        self._distance = choices[distance]

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted mean distance over the reblurred views."""
        reblurred = look_up(prediction, "reblurred", self, "the network's prediction")
        captured = {"left": batch["lq"][:, :3], "right": batch["lq"][:, 3:], "center": batch["center"]}
        distances = [self._distance(image, _shrunk(captured[view], image)) for view, image in reblurred.items()]
        return self.weight * torch.stack(distances).mean()


def _shrunk(captured: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The captured view averaged over blocks, where a reblur module works on small images (IFAN's do)."""
    factor = -(-captured.shape[-1] // image.shape[-1])
    return F.avg_pool2d(captured, factor, ceil_mode=True) if factor > 1 else captured
