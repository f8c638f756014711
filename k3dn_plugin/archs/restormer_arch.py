"""Restormer (Zamir, Arora, Khan, Hayat, F. S. Khan, Yang, CVPR 2022), dual-pixel and single-image.

A U-net of four levels of transformer blocks whose attention runs across channels. The dual-pixel network
predicts the image itself, with a learned skip from the embedding; the single-image one adds its input. The
published evaluation restores the 1120 x 1680 frames of DPDD whole, in 16 bits (dual) or 8 bits (single),
and clamps to [0, 1]; its demo pads other sizes by reflection to a multiple of 8, as is done here.
"""
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.archs.u_shaped import UShapedRestorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.channel_attention import TransformerBlock
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.layers.u_levels import u_levels
from k3dn_plugin.registry import ARCHS


@ARCHS.register_module()
class Restormer(UShapedRestorer):
    """The defaults are the published dual-pixel network.

    Args:
        dual_pixel: take the left and right views, and add a convolution of the embedding before the output
            layer; false takes the center view alone, and adds it to the output.
        width: C, channels at full size; each level has twice as many as the one above.
        blocks: transformer blocks at each encoder level, the innermost last; decoder levels have as many.
        refinement_blocks: at full size, after the decoder.
        heads: of the attention at each level; the decoder's level at full size, of 2C channels, and the
            refinement have those of the first.
        expansion: hidden width of the feed-forward parts in channels, truncated.
        bias: of all convolutions but the embedding and the size changes, which have none.
        norm_bias: whether norms are centered and biased; false in the published denoising networks.
    """

    card: RestorerCard = RestorerCard(
        title="Restormer", bfloat16_db=44.4,
        paper="Zamir, Arora, Khan, Hayat, Khan, Yang: "
              "Restormer: Efficient Transformer for High-Resolution Image Restoration",
        year=2022, venue="CVPR", official_license="Academic Public License, non-commercial",
        views=("left", "right"), size_rule=SizeRule(multiple=(8, 8)),
        # Attention sums over all pixels, so a tile is another picture; 32 is the published demo's overlap.
        tiling="approximate", receptive_margin=32, recipe_source="official code",
        notes="Published scores come from whole frames. `dual_pixel: false` is the single-image network, "
              "which the authors feed with 8-bit center views. Validation scores in the official training "
              "log are not comparable: there values above 1 are not clamped and change the peak.")

    tiny_arguments: ClassVar[dict] = {"width": 4, "blocks": [1, 1, 1, 1], "refinement_blocks": 1,
                                      "heads": [1, 1, 2, 2]}

    def __init__(self, *, dual_pixel: bool = True, width: int = 48, blocks: Sequence[int] = (4, 6, 6, 8),
                 refinement_blocks: int = 4, heads: Sequence[int] = (1, 2, 4, 8), expansion: float = 2.66,
                 bias: bool = False, norm_bias: bool = True) -> None:
        super().__init__()
        _check(width, blocks, refinement_blocks, heads, expansion)
        self.dual_pixel = dual_pixel
        if not dual_pixel:
            self.card = dataclasses.replace(self.card, title="Restormer (single image)", views=("center",),
                                            view_order_matters=False)

        def stage(channels: int, count: int, head_count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(channels, head_count, expansion=expansion, bias=bias,
                                                    norm_bias=norm_bias) for _ in range(count)))

        self.embed = PreciseConv2d(3 * len(self.card.views), width, 3, padding=1, bias=False)
        self.encoder, self.down, self.up, self.reduce, self.decoder = u_levels(
            width, len(blocks), lambda level, channels: stage(channels, blocks[level], heads[level]), bias=bias)
        self.refinement = stage(2 * width, refinement_blocks, heads[0])
        self.skip = PreciseConv2d(width, 2 * width, 1, bias=bias) if dual_pixel else None
        self.out = PreciseConv2d(2 * width, 3, 3, padding=1, bias=bias)


def _check(width: int, blocks: Sequence[int], refinement_blocks: int, heads: Sequence[int],
           expansion: float) -> None:
    if len(blocks) < 2 or len(heads) != len(blocks) or min(*blocks, *heads) < 1 or refinement_blocks < 0:
        raise OptionError("Restormer: expected blocks and heads of at least 1 for the same two levels or "
                          f"more, and refinement_blocks of at least 0; found blocks {list(blocks)}, heads "
                          f"{list(heads)}, refinement_blocks {refinement_blocks}")
    if width < 2 or width % 2:
        raise OptionError(f"Restormer.width: expected an even number of at least 2, found {width}")
    for level, count in enumerate(heads):
        if width * 2 ** level % count:
            raise OptionError(f"Restormer.heads[{level}]: expected a divisor of the level's "
                              f"{width * 2 ** level} channels, found {count}")
    if int(width * expansion) < 1:
        raise OptionError(f"Restormer.expansion: expected at least one hidden channel, so at least 1 / "
                          f"width; found {expansion}")
