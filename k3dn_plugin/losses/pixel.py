"""Distances pixel by pixel."""
import torch
import torch.nn.functional as F

from k3dn_plugin.losses.base import PairLoss
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class L1Loss(PairLoss):
    """Mean absolute error over all values."""

    def distance(self, predicted, target):
        return F.l1_loss(predicted, target)


@LOSSES.register_module()
class MSELoss(PairLoss):
    """Mean squared error over all values."""

    def distance(self, predicted, target):
        return F.mse_loss(predicted, target)


@LOSSES.register_module()
class CharbonnierLoss(PairLoss):
    """Mean of sqrt(difference^2 + eps), a smooth L1 (Charbonnier et al., ICIP 1994).

    Args:
        weight, predicted, target: see `PairLoss`.
        eps: what is added under the root, in squared image units.
    """

    def __init__(self, *, weight: float = 1.0, predicted: str = "restored", target: str = "gt",
                 eps: float = 1e-6):
        super().__init__(weight=weight, predicted=predicted, target=target)
        self.eps = eps

    def distance(self, predicted, target):
        return torch.sqrt((predicted - target) ** 2 + self.eps).mean()
