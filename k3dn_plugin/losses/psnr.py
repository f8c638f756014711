"""The score itself as a loss."""
import torch

from k3dn_plugin.losses.base import PairLoss
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class PSNRLoss(PairLoss):
    """Mean over the images of the decibels that are missing to a perfect one, 10 log10(1 + MSE / eps).

    The gradient is that of the negative PSNR, 10 log10(MSE + eps), on values that are not clamped (Chen et al.,
    NAFNet; `docs/networks/nafnet.md`, section 8); the constant added makes it zero for a perfect prediction.

    Args:
        weight, predicted, target: see `PairLoss`.
        eps: what is added to the mean squared error, in squared image units; 1e-8 stands for a perfect image's 80 dB.
    """

    def __init__(self, *, weight: float = 1.0, predicted: str = "restored", target: str = "gt",
                 eps: float = 1e-8) -> None:
        super().__init__(weight=weight, predicted=predicted, target=target)
        self.eps = eps

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(..., C, H, W) twice -> a scalar."""
        error = (predicted - target).to(torch.promote_types(predicted.dtype, torch.float32))
        return 10 * torch.log10(1 + error.square().mean((-3, -2, -1)) / self.eps).mean()
