"""Distances between image gradients."""
import torch
import torch.nn.functional as F

from k3dn_plugin.losses.base import PairLoss
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class EdgeLoss(PairLoss):
    """Mean absolute difference of the Sobel gradients, horizontal and vertical, channel by channel."""

    def __init__(self, *, weight: float = 1.0, predicted: str = "restored", target: str = "gt"):
        super().__init__(weight=weight, predicted=predicted, target=target)
        across = torch.tensor([[-1., 0., 1.], [-2., 0., 2.], [-1., 0., 1.]]) / 8
        self.register_buffer("kernels", torch.stack([across, across.T])[:, None], persistent=False)

    def distance(self, predicted, target):
        difference = predicted - target
        channels = difference.shape[1]
        kernels = self.kernels.to(difference.dtype).repeat(channels, 1, 1, 1)
        gradients = F.conv2d(F.pad(difference, (1, 1, 1, 1), mode="replicate"), kernels, groups=channels)
        return gradients.abs().mean()
