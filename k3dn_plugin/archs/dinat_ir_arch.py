"""DiNAT-IR (Liu, Li, Liu, Lu, arXiv 2025): Restormer's U with neighborhood attention over space, single and dual.

Each block holds two units of 7 x 7 neighborhood attention, the second dilated so that it reaches as far as a training
crop; a gate over the channels brings in what lies further. The published evaluation restores DPDD's 1120 x 1680 frames
whole, in 16 bits (dual) or 8 bits (single), with the gate's means taken in windows of 1.5 training crops, and clamps.
The published dual network reads B, G, R views and answers in R, G, B; its first convolution is turned to R, G, B when
an official file is loaded, so that nothing else has to know.
"""
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.archs.u_shaped import UShapedRestorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.neighbourhood_unit import NeighbourhoodUnit
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.layers.u_levels import u_levels
from k3dn_plugin.registry import ARCHS


@ARCHS.register_module()
class DiNATIR(UShapedRestorer):
    """The single-image network: the center view in, and added to the output. The defaults are published.

    Args:
        width: C, channels at full size; each level has twice as many as the one above.
        blocks: at each encoder level, the innermost last; decoder levels have as many. A block is two units.
        refinement_blocks: at full size, after the decoder.
        heads: of the attention at each level; the decoder's level at full size, of 2C channels, and the refinement have
            those of the first.
        kernel_size: K; a pixel attends to K x K others.
        dilations: distance between them in the second unit of a block, by level. At most a training crop's side at
            that level divided by K; beyond, features are padded inside.
        first_dilations: likewise of the first unit; None for 1 at every level.
        expansion: hidden width of the feed-forward parts in channels, truncated.
        bias: of all convolutions but the embedding and the size changes, which have none. The attention's projections
            always have biases.
        norm_bias: whether norms are centered and biased.
        gate_kernel: channels that the channel gate sees; 0 for no gate.
        pool_windows: rows and columns of the gate's means by level, 1.5 training crops as published; None for means
            over the whole image, which are the same on images that the windows cover.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DiNAT-IR (single image)", bfloat16_db=68.1,
        paper="Liu, Li, Liu, Lu: "
              "DiNAT-IR: Exploring Dilated Neighborhood Attention for High-Quality Image Restoration",
        year=2025, venue="arXiv:2507.17892", official_license="none stated",
        views=("center",), size_rule=SizeRule(multiple=(8, 8)),
        # A dilated unit at full size reaches 108 pixels and the gate's means 384, so a tile is another picture.
        tiling="approximate", receptive_margin=112, view_order_matters=False, recipe_source="official code",
        notes="Published scores come from whole frames with the gate's means in windows of 384 x 384 pixels "
              "(`pool_windows`). The published files are chosen on DPDD's test split.")

    tiny_arguments: ClassVar[dict] = {
        "width": 8, "blocks": [1, 1], "refinement_blocks": 1, "heads": [1, 2], "kernel_size": 3, "dilations": [4, 2],
        "pool_windows": [[48, 48], [24, 24]]}

    def __init__(self, *, width: int = 48, blocks: Sequence[int] = (2, 3, 3, 4), refinement_blocks: int = 2,
                 heads: Sequence[int] = (1, 2, 4, 8), kernel_size: int = 7,
                 dilations: Sequence[int] = (36, 18, 9, 4), first_dilations: Sequence[int] | None = None,
                 expansion: float = 2.66, bias: bool = False, norm_bias: bool = True, gate_kernel: int = 7,
                 pool_windows: Sequence[tuple[int, int]] | None = ((384, 384), (192, 192), (96, 96), (48, 48))) -> None:
        super().__init__()
        name = type(self).__name__
        first_dilations = [1] * len(blocks) if first_dilations is None else first_dilations
        _check(name, width, blocks, refinement_blocks, heads, dilations, first_dilations, expansion, pool_windows)
        self.dual_pixel = len(self.card.views) == 2

        def stage(level: int, channels: int, count: int) -> nn.Sequential:
            rows, columns = (None, None) if pool_windows is None else pool_windows[level]
            window = None if rows is None or columns is None else (rows, columns)
            return nn.Sequential(*(nn.Sequential(*(
                NeighbourhoodUnit(channels, heads[level], kernel_size=kernel_size, dilation=dilation,
                                  expansion=expansion, bias=bias, norm_bias=norm_bias, gate_kernel=gate_kernel,
                                  window=window)
                for dilation in (first_dilations[level], dilations[level]))) for _ in range(count)))

        self.embed = PreciseConv2d(3 * len(self.card.views), width, 3, padding=1, bias=False)
        self.encoder, self.down, self.up, self.reduce, self.decoder = u_levels(
            width, len(blocks), lambda level, channels: stage(level, channels, blocks[level]), bias=bias)
        self.refinement = stage(0, 2 * width, refinement_blocks)
        self.skip = PreciseConv2d(width, 2 * width, 1, bias=bias) if self.dual_pixel else None
        self.out = PreciseConv2d(2 * width, 3, 3, padding=1, bias=bias)


@ARCHS.register_module()
class DiNATIRDual(DiNATIR):
    """The dual-pixel network: left and right view in, a learned skip from the embedding, no image added."""

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DiNAT-IR (dual)", bfloat16_db=59.4, paper=DiNATIR.card.paper, year=2025, venue=DiNATIR.card.venue,
        official_license=DiNATIR.card.official_license, views=("left", "right"), size_rule=DiNATIR.card.size_rule,
        tiling="approximate", receptive_margin=DiNATIR.card.receptive_margin,
        recipe_source=DiNATIR.card.recipe_source,
        notes=DiNATIR.card.notes + " Official files read B, G, R views; they are converted when loaded.")


def _check(name: str, width: int, blocks: Sequence[int], refinement_blocks: int, heads: Sequence[int],
           dilations: Sequence[int], first_dilations: Sequence[int], expansion: float,
           pool_windows: Sequence[tuple[int, int]] | None) -> None:
    if len(blocks) < 2 or min(blocks) < 1 or refinement_blocks < 0:
        raise OptionError(f"{name}: expected two levels or more, of at least one block, and refinement_blocks of at "
                          f"least 0; found blocks {list(blocks)}, refinement_blocks {refinement_blocks}")
    smallest_sides = None if pool_windows is None else [min(window) for window in pool_windows]
    for setting, values, numbers in (("heads", heads, heads), ("dilations", dilations, dilations),
                                     ("first_dilations", first_dilations, first_dilations),
                                     ("pool_windows", pool_windows, smallest_sides)):
        if values is None or numbers is None:
            continue
        if len(numbers) != len(blocks) or min(numbers) < 1:
            raise OptionError(f"{name}.{setting}: expected numbers of at least 1 for each of the {len(blocks)} levels "
                              f"of `blocks`, found {list(values)}")
    if width < 2 or width % 2:
        raise OptionError(f"{name}.width: expected an even number of at least 2, found {width}")
    for level, count in enumerate(heads):
        if width * 2 ** level % count:
            raise OptionError(f"{name}.heads[{level}]: expected a divisor of the level's {width * 2 ** level} "
                              f"channels, found {count}")
    if int(width * expansion) < 1:
        raise OptionError(f"{name}.expansion: expected at least one hidden channel, so at least 1 / width; found "
                          f"{expansion}")
