"""Transformer blocks whose attention runs across channels (Restormer, Zamir et al., CVPR 2022, section 3).

The attention matrix is (channels x channels) per head, so the cost grows with the number of pixels and not
with its square. The softmax is taken in float32 at least, whatever autocast says: its sums run over all pixels.
"""
import torch
from torch import nn

from k3dn_plugin.layers.gated_feed_forward import GatedFeedForward
from k3dn_plugin.layers.layer_norm import ChannelNorm
from k3dn_plugin.layers.residual import at_least_float32, without_autocast

NORM_FLOOR = 1e-12


class ChannelAttention(nn.Module):
    """Multi-head attention across channels (MDTA; paper, equation 1), (B, C, H, W) -> the same shape.

    softmax(t Q K^T) V with rows of Q and K of unit length along the pixels, a learned t per head in place
    of the square root of the head's size, and 3x3 depthwise convolutions after the projections.
    """

    def __init__(self, channels: int, heads: int, *, bias: bool = False):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        heads = self.temperature.shape[0]
        q, k, v = self.qkv_dwconv(self.qkv(x)).reshape(
            batch, 3, heads, channels // heads, height * width).unbind(1)
        attention = self.attention(q, k).to(v.dtype)
        return self.project_out((attention @ v).view(batch, channels, height, width))

    def attention(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """(B, heads, C / heads, pixels) twice -> (B, heads, C / heads, C / heads), rows summing to one.

        The products are divided by the lengths afterwards, which spares normalized copies of q and k.
        """
        with without_autocast(q):
            q, k = at_least_float32(q), at_least_float32(k)
            lengths = [t.norm(dim=-1, keepdim=True).clamp(min=NORM_FLOOR) for t in (q, k)]
            cosines = (q @ k.transpose(-2, -1)) / (lengths[0] * lengths[1].transpose(-2, -1))
            return (cosines * self.temperature).softmax(-1)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); (B, C, H, W) -> the same shape.

    Args:
        heads: must divide the channels.
        expansion: of the feed-forward part.
        bias: of all convolutions.
        norm_bias: whether the norms are centered and biased (see `ChannelNorm`).
    """

    def __init__(self, channels: int, heads: int, *, expansion: float = 2.66, bias: bool = False,
                 norm_bias: bool = True):
        super().__init__()
        self.norm1 = ChannelNorm(channels, bias=norm_bias)
        self.attn = ChannelAttention(channels, heads, bias=bias)
        self.norm2 = ChannelNorm(channels, bias=norm_bias)
        self.ffn = GatedFeedForward(channels, expansion, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))
