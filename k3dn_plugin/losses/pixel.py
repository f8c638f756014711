"""Distances pixel by pixel.

Distances in the Fourier domain.
"""
import torch
import torch.nn.functional as F

from k3dn_plugin.losses.base import PairLoss
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class L1Loss(PairLoss):
    """Mean absolute error over all values."""

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.l1_loss(predicted, target)


@LOSSES.register_module()
class MSELoss(PairLoss):
    """Mean squared error over all values."""

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
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

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.sqrt((predicted - target) ** 2 + self.eps).mean()


@LOSSES.register_module()
class FFTLoss(PairLoss):
    """Mean absolute difference of the real and imaginary parts of the 2-D spectra.

    Orthonormal transform, so that the value does not grow with the size of the crop.
    """

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # The FFT has no bfloat16 kernel; under autocast the prediction may come in half precision.
        difference = torch.fft.rfft2((predicted - target).float(), norm="ortho")
        return torch.view_as_real(difference).abs().mean()
