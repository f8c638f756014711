"""BaMBNet: blur-aware multi-branch network (Liang, Jiang, Liu, Ma, IEEE/CAA J. Autom. Sinica 2022).

Four branches of growing capacity over one stem. In the first 20000 training steps each branch is shown the
pixels of its own range of blur, by masks from a circle-of-confusion (CoC) map that fade out; afterwards,
and in evaluation, all branches act everywhere and no map is needed. The CoC network has the same layers
and is trained without labels. The published evaluation restores DPDD's frames whole, in BGR; its sizes are
multiples of 16, to which other sizes are padded by reflection here.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer, pad_to
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.registry import ARCHS

STAGES = 8
STRIDE = 2 ** (STAGES // 2)
COC_LIMIT = 24.0


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ChannelAttention(nn.Module):
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
                                  ChannelAttention(channels, reduction))

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
    stages 1 to 4 and double it in 5 to 8."""
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
        self.head = nn.Sequential(conv3(6, width), nn.ReLU())
        self.tail_hard = nn.Sequential(conv3(width, 3))
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
    """Estimates the signed radius of the circle of confusion of each pixel and colour, from the two views.

    Trained without labels: each view blurred with the other one's kernel must agree
    (`modules/kernels/coc_kernels.py`, `cross_blur`).
    """

    def __init__(self, *, width: int = 64, blocks: tuple[int, ...] = (1, 2, 3), reduction: int = 16):
        super().__init__()
        self.network = BranchNetwork(width=width, blocks=tuple(blocks), reduction=reduction)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W), left then right, BGR in [0, 1], sizes multiples of 16 -> (B, 3, H, W) in pixels,
        within [-24, 24]."""
        return self.network(views).clamp(-COC_LIMIT, COC_LIMIT)


@ARCHS.register_module()
class BaMBNet(Restorer):
    """The deblurring network and, if asked for, the CoC network whose maps mask its branches in training.

    In training mode the masks come from the CoC network, else from the batch's `coc` (B, 1 or 3, H, W),
    radii in pixels, signed or not; without either there are none. Evaluation never masks.

    Args:
        width, blocks, reduction: as in `BranchNetwork`; the defaults are published.
        coc_network: hold a CoC network (under `coc.`); train it first, in a stage of its own.
        mask_iterations: training steps over which the masks fade; 0 for no masks.
        mask_thresholds: radii in pixels at which the next branch takes over, one fewer than branches. The
            published ones come from a meta-learning procedure that was not released.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="BaMBNet",
        paper="Liang, Jiang, Liu, Ma: BaMBNet: A Blur-Aware Multi-Branch Network for Dual-Pixel Defocus "
              "Deblurring",
        year=2022, venue="IEEE/CAA Journal of Automatica Sinica", official_licence="CC BY-NC 4.0",
        views=("left", "right"), channel_order="bgr", size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        # The channel attention takes means over the whole image.
        tiling="approximate", receptive_margin=96, recipe_source="official code",
        notes="The sigmoid at the end predicts the sharp image itself. `mask_step` counts the training steps "
              "of the masks and is stored with the weights, so that a resumed run goes on with them; "
              "official files have none and start at 0.")

    tiny_arguments: ClassVar[dict] = {"width": 16, "blocks": [1, 1], "reduction": 1,
                                      "mask_thresholds": [2.0, 4.0]}

    def __init__(self, *, width: int = 64, blocks: tuple[int, ...] = (1, 2, 3), reduction: int = 16,
                 coc_network: bool = False, mask_iterations: int = 20000,
                 mask_thresholds: tuple[float, ...] = (1.9, 4.2, 6.2)):
        super().__init__()
        thresholds = list(mask_thresholds)
        if len(thresholds) != len(blocks) or sorted(thresholds) != thresholds or min(thresholds) <= 0:
            raise OptionError(f"BaMBNet.mask_thresholds: expected {len(blocks)} positive radii in rising "
                              f"order, one for each of `blocks`; found {thresholds}")
        if mask_iterations < 0:
            raise OptionError(f"BaMBNet.mask_iterations: expected 0 or more, found {mask_iterations}")
        self.mask_iterations = mask_iterations
        self.mask_thresholds = tuple(thresholds)
        self.network = BranchNetwork(width=width, blocks=tuple(blocks), reduction=reduction)
        self.coc = CoCNetwork(width=width, blocks=blocks, reduction=reduction) if coc_network else None
        self.register_buffer("mask_step", torch.zeros((), dtype=torch.int64))

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W), BGR in [0, 1], at a legal size -> (B, 3, H, W) in (0, 1)."""
        return torch.sigmoid(self.network(views))

    def training_outputs(self, batch: dict) -> dict:
        """`restored`, and `coc` (B, 3, H, W), BGR, signed pixels, where there is a CoC network.

        In training mode every call is one step of the masks.
        """
        views = self.network_input(batch["lq"], batch.get("center"))
        height, width = views.shape[-2:]
        views = pad_to(views, self.size_rule.padded(height, width))
        coc = self.coc(views) if self.coc is not None else None
        shares = None
        if self.training and self.mask_iterations:
            self.mask_step += 1
            radius = batch.get("coc") if coc is None else coc.detach()
            if radius is not None:
                if radius.ndim != 4:
                    raise SizeError("coc: expected (B, 1 or 3, H, W), radii in pixels; found "
                                    f"{tuple(radius.shape)}")
                shares = self.shares(pad_to(radius, views.shape[-2:]), self.mask_step)
        image = torch.sigmoid(self.network(views, shares))
        prediction = {"restored": self.network_output(image)[..., :height, :width]}
        if coc is not None:
            prediction["coc"] = coc[..., :height, :width]
        return prediction

    def shares(self, radius: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """How much of each branch a pixel is shown: (B, branches, H, W), w mask + 1 - w with w falling from
        1 as exp(-(2 step / mask_iterations)^2), and 0 from `mask_iterations` on.

        Args:
            radius: (B, C, H, W) in pixels; the largest magnitude of the channels counts.
            step: training step, a tensor without dimensions.
        """
        magnitude = radius.abs().amax(1, keepdim=True)
        edges = magnitude.new_tensor(self.mask_thresholds)
        branch = torch.bucketize(magnitude.contiguous(), edges, right=True)
        numbers = torch.arange(len(edges) + 1, device=branch.device).view(1, -1, 1, 1)
        # Published in float32, whatever the network's precision.
        weight = torch.exp(-(2 * step.float() / self.mask_iterations) ** 2)
        weight = torch.where(step < self.mask_iterations, weight, torch.zeros_like(weight))
        return weight * (branch == numbers).to(magnitude.dtype) + (1 - weight)
