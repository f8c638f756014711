"""Layer norm over the channels of each pixel, in the forms of Restormer and of NAFNet."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.residual import at_least_float32, without_autocast

VARIANCE_FLOOR = 1e-5


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, (B, C, H, W) -> the same shape.

    With `bias`: (x - mean) / sqrt(variance + eps) * weight + bias. Without: x / sqrt(variance + eps) *
    weight, where the variance is still that about the mean but x is not centered (`docs/networks/restormer.md`).
    The variance is the biased one. Both are taken in float32 at least, whatever autocast asks for.

    Args:
        channels: C.
        bias: whether the norm is centered and biased.
        eps: added to the variance; 1e-5 in Restormer, 1e-6 in NAFNet.
    """

    def __init__(self, channels: int, *, bias: bool = True, eps: float = VARIANCE_FLOOR) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W), in the dtype of x."""
        with without_autocast(x):
            wide, weight = at_least_float32(x), at_least_float32(self.weight)
            if self.bias is not None:
                out = F.layer_norm(wide.movedim(1, -1), weight.shape, weight, at_least_float32(self.bias),
                                   self.eps).movedim(-1, 1)
            else:
                variance = wide.var(1, correction=0, keepdim=True)
                out = wide * (torch.rsqrt(variance + self.eps) * weight[:, None, None])
        return out.to(x.dtype)
