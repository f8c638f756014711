"""DiNAT-IR's transformer unit: neighborhood attention that a channel gate weighs, then a gated feed-forward part.

H. Liu, B. Li, C. Liu, M. Lu, "DiNAT-IR: Exploring Dilated Neighborhood Attention for High-Quality Image Restoration",
arXiv:2507.17892, 2025 (`docs/networks/dinat_ir.md`, sections 5 and 6).
"""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.gated_feed_forward import GatedFeedForward
from k3dn_plugin.layers.layer_norm import ChannelNorm
from k3dn_plugin.layers.local_mean import local_mean
from k3dn_plugin.layers.neighbourhood_attention import NeighbourhoodAttention


class ChannelGate(nn.Module):
    """A number in (0, 1) per channel, from the means of the channel and its neighbors in channel order.

    g[c] = sigmoid(sum over t of w[t] m[c + t - K // 2]), with m the means over a window and zero beyond the channels.

    Args:
        kernel_size: K, odd; channels that a gate sees.
        window: (rows, columns) of the means, kept inside the map; None, or one that covers it, is all of it.

    Raises:
        OptionError: the kernel size is even or below 1.
    """

    def __init__(self, kernel_size: int = 7, *, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"ChannelGate.kernel_size: expected an odd number, found {kernel_size}")
        self.window = window
        self.radius = kernel_size // 2
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=self.radius, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W), or (B, C, 1, 1) where the window is the whole map."""
        means = local_mean(x, self.window)
        filtered = F.conv2d(means.flatten(2).unsqueeze(1), self.conv.weight.unsqueeze(-1),
                            padding=(self.radius, 0))
        return torch.sigmoid(filtered.squeeze(1).view_as(means))


class NeighbourhoodUnit(nn.Module):
    """x + attention(n) gate(n) with n = norm(x), then x + feed-forward(norm(x)); (B, C, H, W) -> the same shape.

    Args:
        channels: C.
        heads: of the attention; a divisor of C.
        kernel_size: K; a pixel sees K x K others.
        dilation: distance between them.
        expansion: of the feed-forward part.
        bias: of the feed-forward part's convolutions.
        norm_bias: whether the norms are centered and biased.
        gate_kernel: channels that the gate sees; 0 for no gate.
        window: of the gate's means (see `ChannelGate`).
    """

    def __init__(self, channels: int, heads: int, *, kernel_size: int = 7, dilation: int = 1, expansion: float = 2.66,
                 bias: bool = False, norm_bias: bool = True, gate_kernel: int = 7,
                 window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.attention = NeighbourhoodAttention(channels, heads, kernel_size=kernel_size, dilation=dilation)
        self.norm1 = ChannelNorm(channels, bias=norm_bias)
        self.gate = ChannelGate(gate_kernel, window=window) if gate_kernel else None
        self.norm2 = ChannelNorm(channels, bias=norm_bias)
        self.ffn = GatedFeedForward(channels, expansion, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        normed = self.norm1(x)
        attended = self.attention(normed.movedim(1, -1)).movedim(-1, 1)
        x = x + (attended if self.gate is None else attended * self.gate(normed))
        return x + self.ffn(self.norm2(x))
