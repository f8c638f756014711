"""LaKDNet (Ruan, Bemana, Seidel, Myszkowski, Chen, arXiv:2302.02234, 2023), single-image and dual-pixel.

Restormer's U, with 9x9 depthwise convolutions in place of every attention: plain convolutions throughout. The
dual-pixel network sees left, right and center view and adds what it predicts to the center. The published
evaluation restores whole frames, 8-bit ones (single image) or 16-bit ones (dual-pixel), pads other sizes by
reflection to a multiple of 8, as is done here, and the network itself clips to [0, 1].
"""
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.archs.u_shaped import UShapedRestorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.large_kernel import LargeKernelBlock
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.layers.u_levels import through_levels, u_levels
from k3dn_plugin.registry import ARCHS


@ARCHS.register_module()
class LaKDNet(UShapedRestorer):
    """The single-image network: the center view alone. The defaults are the published size S; `width: 48` is size L.

    Args:
        width: C, channels at full size; each level has twice as many as the one above.
        blocks: at each encoder level, the innermost last; decoder levels have as many.
        kernel_sizes: sides of the depthwise kernels at each level, odd; 9 in the published defocus networks,
            7 in those for motion blur.
        expansion: hidden width of the feed-forward parts in channels, truncated.
        bias: of the convolutions that have none as published; the mixers' 1x1 ones always have one, the size changes
            never.
        norm_bias: whether norms are centered and biased.
        clip_in_training: clip the output to [0, 1] in training too, as published; where it acts no gradient passes.
            False leaves it free until evaluation.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="LaKDNet", bfloat16_db=48.2,
        paper="Ruan, Bemana, Seidel, Myszkowski, Chen: Revisiting Image Deblurring with an Efficient ConvNet",
        year=2023, venue="arXiv 2302.02234", official_license="GNU AGPL v3",
        views=("center",), size_rule=SizeRule(multiple=(8, 8)), view_order_matters=False,
        # A pixel reaches 2,622 pixels far, more than a frame, though hardly anything arrives from there.
        tiling="approximate", receptive_margin=128,
        recipe_source="ours; only the training sets are published",
        notes="The defaults are size S; `width: 48` is size L. Restored images are clipped to [0, 1], as published. "
              "Published scores come from whole frames: 8-bit images for the single-image network, 16-bit ones for "
              "the dual-pixel network.")

    tiny_arguments: ClassVar[dict] = {"width": 4, "blocks": [1, 1, 1, 1], "kernel_sizes": [5, 5, 3, 3]}

    def __init__(self, *, width: int = 32, blocks: Sequence[int] = (8, 12, 12, 16),
                 kernel_sizes: Sequence[int] = (9, 9, 9, 9), expansion: float = 2.3, bias: bool = False,
                 norm_bias: bool = True, clip_in_training: bool = True) -> None:
        super().__init__()
        _check(type(self).__name__, width, blocks, kernel_sizes, expansion)
        self.clip_in_training = clip_in_training

        def stage(level: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(LargeKernelBlock(channels, kernel_sizes[level], expansion=expansion, bias=bias,
                                                    norm_bias=norm_bias) for _ in range(blocks[level])))

        self.embed = PreciseConv2d(3 * len(self.card.views), width, 3, padding=1, bias=bias)
        self.encoder, self.down, self.up, self.reduce, self.decoder = u_levels(width, len(blocks), stage, bias=bias)
        self.out = PreciseConv2d(2 * width, 3, 3, padding=1, bias=bias)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """Restore the center, the last three channels.

        (B, 3 or 9, H, W) in [0, 1] at a legal size -> (B, 3, H, W), clipped to [0, 1].
        """
        restored = self.out(through_levels(self.embed(views), self)) + views[:, -3:]
        return restored.clamp(0, 1) if self.clip_in_training or not self.training else restored


@ARCHS.register_module()
class LaKDNetDual(LaKDNet):
    """The dual-pixel network: left, right and center view, of which the center is restored."""

    card: ClassVar[RestorerCard] = dataclasses.replace(
        LaKDNet.card, title="LaKDNet (dual)", bfloat16_db=52.2,
        views=("left", "right", "center"), view_order_matters=True,
        notes=LaKDNet.card.notes + " Needs the captured center view for the published scores; without one the mean "
                                   "of the views is restored.")


def _check(name: str, width: int, blocks: Sequence[int], kernel_sizes: Sequence[int], expansion: float) -> None:
    """Raise `OptionError` for settings that no network can have."""
    if len(blocks) < 2 or len(kernel_sizes) != len(blocks) or min(blocks) < 1:
        raise OptionError(f"{name}: expected blocks of at least 1 and kernel_sizes for the same two levels or more; "
                          f"found blocks {list(blocks)} and kernel_sizes {list(kernel_sizes)}")
    if min(kernel_sizes) < 1 or not all(size % 2 for size in kernel_sizes):
        raise OptionError(f"{name}.kernel_sizes: expected odd numbers, since even kernels change the size of the "
                          f"map; found {list(kernel_sizes)}")
    if width < 2 or width % 2:
        raise OptionError(f"{name}.width: expected an even number of at least 2, found {width}")
    if int(width * expansion) < 1:
        raise OptionError(f"{name}.expansion: expected at least one hidden channel, so at least 1 / width; found "
                          f"{expansion}")
