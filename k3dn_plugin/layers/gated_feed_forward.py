"""The gated feed-forward part of Restormer and of the networks built on it (LaKDNet, DiNAT-IR)."""
import torch
import torch.nn.functional as F
from torch import nn


class GatedFeedForward(nn.Module):
    """Two projections with 3x3 depthwise convolutions, one gating the other by GELU (Zamir et al., Restormer,
    equation 2); (B, C, H, W) -> the same shape.

    Args:
        channels: C.
        expansion: the hidden width is this times the channels, truncated.
        bias: of the three convolutions.
    """

    def __init__(self, channels: int, expansion: float, *, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * value)
