"""NAFNet's block and trunk (Chen et al., ECCV 2022), which NAFNet, LDP and a deblur module share.

No activation function anywhere: products of halves of the channels ("gates") take their place
(`docs/networks/nafnet.md`, sections 4 to 6).
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.layer_norm import ChannelNorm
from k3dn_plugin.layers.local_mean import grid_means, local_mean, training_window

NORM_FLOOR = 1e-6


def gate(x: torch.Tensor) -> torch.Tensor:
    """Return the product of the first half of the channels and the second, (B, 2C, H, W) -> (B, C, H, W)."""
    first, second = x.chunk(2, 1)
    return first * second


class NAFBlock(nn.Module):
    """Channel attention after a depthwise convolution, then a gated pointwise part; (B, C, H, W) -> the same shape.

    y = x + beta conv3(a attention(mean of a)) with a = gate(conv2(conv1(norm1(x)))), then
    y + gamma conv5(gate(conv4(norm2(y)))). beta and gamma start at zero.

    Args:
        channels: C.
        window: rows and columns of the windows whose means the attention sees; None for the whole map.
    """

    def __init__(self, channels: int, *, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window = window
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = ChannelNorm(channels, eps=NORM_FLOOR)
        self.norm2 = ChannelNorm(channels, eps=NORM_FLOOR)

    def forward(self, x: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W).

        Args:
            x: features.
            grid: rows and columns of windows that lie side by side and each have an attention of their own, in place
                of the block's sliding ones; they must divide H and W.

        Raises:
            SizeError: the grid does not divide the size.
        """
        a = gate(self.conv2(self.conv1(self.norm1(x))))
        if grid is None:
            scale = self.attention(local_mean(a, self.window))
        else:
            scale = F.interpolate(self.attention(grid_means(a, grid)), size=a.shape[-2:], mode="nearest")
        y = x + self.beta * self.conv3(a * scale)
        return y + self.gamma * self.conv5(gate(self.conv4(self.norm2(y))))


class NAFTrunk(nn.Module):
    """The U of NAFNet: 2x2 convolutions inwards, pixel shuffles outwards, skips added.

    Args:
        in_channels: of its input.
        out_channels: of its output.
        width: C; level l has C 2^l channels.
        encoder_blocks: at each level, from full size inwards.
        middle_blocks: below the last level.
        decoder_blocks: at each level, from the innermost out; as many levels as the encoder.
        train_size: rows and columns of the training crops, for local pooling in windows of one and a half times
            as much; None pools globally.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int, encoder_blocks: Sequence[int],
                 middle_blocks: int, decoder_blocks: Sequence[int], train_size: Sequence[int] | None = None) -> None:
        super().__init__()
        levels = len(encoder_blocks)
        self.multiple = 2 ** levels

        def stage(level: int, count: int) -> nn.Sequential:
            window = None if train_size is None else training_window(train_size, level=level,
                                                                     multiple=self.multiple)
            return nn.Sequential(*(NAFBlock(width * 2 ** level, window=window) for _ in range(count)))

        self.intro = nn.Conv2d(in_channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, out_channels, 3, padding=1)
        self.encoders = nn.ModuleList(stage(level, count) for level, count in enumerate(encoder_blocks))
        self.decoders = nn.ModuleList(stage(levels - 1 - i, count) for i, count in enumerate(decoder_blocks))
        self.middle = stage(levels, middle_blocks)
        # Each convolution doubles the channels before the shuffle divides them by four.
        self.ups = nn.ModuleList(nn.Conv2d(width * 2 ** level, width * 2 ** (level + 1), 1, bias=False)
                                 for level in range(levels, 0, -1))
        self.downs = nn.ModuleList(nn.Conv2d(width * 2 ** level, width * 2 ** (level + 1), 2, stride=2)
                                   for level in range(levels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) of any size -> (B, C_out, H, W).

        Zeros are appended at the bottom and right up to multiples of 2^levels, as published; they take part in the
        pooling.
        """
        height, width = x.shape[-2:]
        x = self.intro(F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple)))
        skips = []
        for stage, down in zip(self.encoders, self.downs, strict=False):
            x = stage(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, stage in zip(self.ups, self.decoders, strict=False):
            x = stage(F.pixel_shuffle(up(x), 2) + skips.pop())
        return self.ending(x)[..., :height, :width]
