"""BaMBNet's branches over one stem, and the network of circles of confusion that has the same layers.

P. Liang, J. Jiang, X. Liu, J. Ma, "BaMBNet: A Blur-Aware Multi-Branch Network for Dual-Pixel Defocus Deblurring",
IEEE/CAA J. Autom. Sinica 2022. The deblurring network uses the one, a blur map the other.
"""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.precise import PreciseConv2d

STAGES = 8
STRIDE = 2 ** (STAGES // 2)
COC_LIMIT = 24.0


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class SqueezedAttention(nn.Module):
    """Weigh each channel by a sigmoid of the channels' means."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.conv_du = nn.Sequential(nn.Conv2d(channels, channels // reduction, 1), nn.ReLU(),
                                     nn.Conv2d(channels // reduction, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv_du(x.mean((-2, -1), keepdim=True))


class AttentionBlock(nn.Module):
    """x + channel attention of two convolutions of x (RCAB)."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.body = nn.Sequential(conv3(channels, channels), nn.ReLU(), conv3(channels, channels),
                                  SqueezedAttention(channels, reduction))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class ResidualGroup(nn.Module):
    """x + convolution of `blocks` attention blocks of x."""

    def __init__(self, channels: int, blocks: int, reduction: int):
        super().__init__()
        self.body = nn.Sequential(*(AttentionBlock(channels, reduction) for _ in range(blocks)),
                                  conv3(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def stage(number: int, branch: int, width: int, blocks: tuple[int, ...], reduction: int) -> nn.Sequential:
    """Stage 1 to 8 of a branch. Branch 0 is a 1x1 convolution at full size; the others halve the size in
    stages 1 to 4 and double it in 5 to 8.
    """
    if branch == 0:
        return nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU())
    resize = nn.MaxPool2d(2) if number <= STAGES // 2 else nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(ResidualGroup(width, blocks[branch - 1], reduction), resize)


class BranchNetwork(nn.Module):
    """Stem, branches and last convolution, which the deblurring and the CoC network have in common.

    Args:
        width: channels everywhere between.
        blocks: attention blocks in a residual group of branches 1, 2, ...; branch 0 has none.
        reduction: of the channel attention.
    """

    def __init__(self, *, width: int, blocks: tuple[int, ...], reduction: int):
        super().__init__()
        if width < reduction or reduction < 1 or not blocks or min(blocks) < 1:
            raise OptionError("BaMBNet: expected width >= reduction >= 1 and at least one block in each "
                              f"branch; found width {width}, reduction {reduction}, blocks {list(blocks)}")
        self.branches = len(blocks) + 1
        self.head = nn.Sequential(PreciseConv2d(6, width, 3, padding=1), nn.ReLU())
        self.tail_hard = nn.Sequential(PreciseConv2d(width, 3, 3, padding=1))
        for number in range(1, STAGES + 1):
            self.add_module(f"layer{number}", nn.ModuleList(
                stage(number, branch, width, blocks, reduction) for branch in range(self.branches)))

    def forward(self, views: torch.Tensor, shares: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 6, H, W) -> (B, 3, H, W), before the last activation.

        Args:
            shares: (B, branches, H, W), weights of the branches at each pixel; None for 1.
        """
        stem = self.head(views)
        # The stem is added at every stage; its pooled forms are made once for all branches.
        pyramid = [stem]
        for _ in range(STAGES // 2):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        total = stem
        for number in range(self.branches):
            out = self.branch(number, pyramid if number else [stem] * len(pyramid))
            total = total + (out if shares is None else out * shares[:, number:number + 1].to(out.dtype))
        return self.tail_hard(total)

    def branch(self, number: int, pyramid: list[torch.Tensor]) -> torch.Tensor:
        """One branch, (B, width, H, W), from the stem at 1, 1/2, 1/4, 1/8 and 1/16 (paper, figure 3)."""
        stages = [getattr(self, f"layer{s}")[number] for s in range(1, STAGES + 1)]
        y1 = stages[0](pyramid[0])
        y2 = stages[1](y1 + pyramid[1])
        y3 = stages[2](y2 + pyramid[2])
        y4 = stages[3](y3 + pyramid[3])
        y5 = stages[4](y4 + pyramid[4])
        y6 = stages[5](y5 + pyramid[3] + y3)
        y7 = stages[6](y6 + pyramid[2] + y2)
        return stages[7](y7 + pyramid[1] + y1)


class CoCNetwork(nn.Module):
    """Estimates the signed radius of the circle of confusion of each pixel and color, from the two views.

    Trained without labels: each view blurred with the other one's kernel must agree
    (`cross_blur`, with the half-disc kernels of the circle of confusion).
    """

    def __init__(self, *, width: int = 64, blocks: tuple[int, ...] = (1, 2, 3), reduction: int = 16):
        super().__init__()
        self.network = BranchNetwork(width=width, blocks=tuple(blocks), reduction=reduction)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W), left then right, BGR in [0, 1], sizes multiples of 16 -> (B, 3, H, W) in pixels,
        within [-24, 24].
        """
        return self.network(views).clamp(-COC_LIMIT, COC_LIMIT)
