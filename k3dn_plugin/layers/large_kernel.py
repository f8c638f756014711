"""LaKDNet's block of large depthwise kernels (Ruan et al., arXiv:2302.02234), which a deblur module shares."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.gated_feed_forward import GatedFeedForward
from k3dn_plugin.layers.layer_norm import ChannelNorm


class LargeKernelMixer(nn.Module):
    """Two depthwise k x k and two 1x1 convolutions in turn, each followed by GELU and a sum with the mixer's input.

    (B, C, H, W) -> the same shape (`docs/networks/lakdnet.md`, section 4). All four sums are with the input itself,
    not with what the layer before gave.

    Args:
        channels: C.
        kernel_size: k, odd.
        bias: of the depthwise convolutions; the 1x1 ones always have one.
    """

    def __init__(self, channels: int, kernel_size: int, *, bias: bool = False) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"kernel_size: expected an odd number, since even kernels change the size of the map; "
                              f"found {kernel_size}")

        def depthwise() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)

        self.depth1, self.point1 = depthwise(), nn.Conv2d(channels, channels, 1)
        self.depth2, self.point2 = depthwise(), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        mixed = x
        for layer in (self.depth1, self.point1, self.depth2, self.point2):
            mixed = F.gelu(layer(mixed)) + x
        return mixed


class LargeKernelBlock(nn.Module):
    """x + feed-forward(norm2(x + mixer(norm1(x)))), (B, C, H, W) -> the same shape.

    Unlike in a transformer block the mixer's result does not stay on the trunk: only the feed-forward part sees it.

    Args:
        channels: C.
        kernel_size: of the mixer, odd.
        expansion: hidden width of the feed-forward part in channels, truncated.
        bias: of all convolutions but the mixer's 1x1 ones, which always have one.
        norm_bias: whether the norms are centered and biased (see `ChannelNorm`).

    Raises:
        OptionError: the kernel is even.
    """

    def __init__(self, channels: int, kernel_size: int, *, expansion: float = 2.3, bias: bool = False,
                 norm_bias: bool = True) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, bias=norm_bias)
        self.mixer = LargeKernelMixer(channels, kernel_size, bias=bias)
        self.norm2 = ChannelNorm(channels, bias=norm_bias)
        self.ffn = GatedFeedForward(channels, expansion, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.ffn(self.norm2(x + self.mixer(self.norm1(x))))
