"""NAFNet (Chen, Chu, Zhang, Sun, ECCV 2022), single-image, and our dual-pixel form of it.

A U of convolutions, channel norms and products of channels, without any activation function. Trained on 256 x 256
crops with attention over the whole crop, the defocus networks are run with local pooling: each pixel's attention sees
the mean of a window of one and a half times the crop (Chu et al., ECCV 2022). Any size is padded with zeros inside the
network, as published. The published evaluation on DPDD restores 8-bit frames whole.
"""
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.naf import NAFTrunk
from k3dn_plugin.registry import ARCHS


@ARCHS.register_module()
class NAFNet(Restorer):
    """The single-image network: the center view alone.

    The defaults are the blocks of the GoPro, REDS and defocus networks at width 32; the defocus weights have
    `width: 64`. The SIDD (denoising) networks have `encoder_blocks: [2, 2, 4, 8]`, `middle_blocks: 12`,
    `decoder_blocks: [2, 2, 2, 2]` and `train_size: null`.

    Args:
        width: C, channels at full size; each level has twice as many as the one above.
        encoder_blocks: at each level, from full size inwards.
        middle_blocks: below the last level.
        decoder_blocks: at each level, from the innermost out.
        train_size: rows and columns of the training crops, which decide the windows of local pooling; null pools over
            the whole map. It has no weights, so either form loads the other's.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="NAFNet", bfloat16_db=72.0, paper="Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration",
        year=2022, venue="ECCV", official_license="MIT", views=("center",), size_rule=SizeRule(stride=(16, 16)),
        view_order_matters=False,
        # Windows of the attention reach 192 pixels far, the convolutions 279.
        tiling="approximate", receptive_margin=128,
        recipe_source="the repository of CLDefocus (Lee, Kim, Cho, arXiv 2607.05837), which trained it on DPDD",
        notes="The defaults have width 32; the published defocus weights have `width: 64`. Sizes that are no multiple "
              "of 16 are padded with zeros inside, as published. Local pooling changes nothing on frames of up to 1.5 "
              "`train_size`.")

    tiny_arguments: ClassVar[dict] = {"width": 4, "encoder_blocks": [1, 1], "middle_blocks": 1,
                                      "decoder_blocks": [1, 1], "train_size": [32, 32]}

    def __init__(self, *, width: int = 32, encoder_blocks: Sequence[int] = (1, 1, 1, 28), middle_blocks: int = 1,
                 decoder_blocks: Sequence[int] = (1, 1, 1, 1), train_size: Sequence[int] | None = (256, 256)) -> None:
        super().__init__()
        _check(type(self).__name__, width, encoder_blocks, middle_blocks, decoder_blocks, train_size)
        self.trunk = NAFTrunk(3 * len(self.trunk_views()), 3, width=width, encoder_blocks=encoder_blocks,
                              middle_blocks=middle_blocks, decoder_blocks=decoder_blocks, train_size=train_size)

    @classmethod
    def trunk_views(cls) -> tuple[str, ...]:
        """Return the views that the convolutions see, the first among the card's."""
        return ("center",)

    @property
    def size_rule(self) -> SizeRule:
        """Any size; each level halves it, which tiles have to respect."""
        return SizeRule(stride=(self.trunk.multiple,) * 2)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """Add what the trunk predicts to the center view, the last three channels.

        (B, 3 or 9, H, W) in [0, 1] of any size -> (B, 3, H, W), not clamped.
        """
        return self.trunk(views[:, :3 * len(self.trunk_views())]) + views[:, -3:]


@ARCHS.register_module()
class NAFNetDual(NAFNet):
    """Ours: the convolutions see left and right view, and their result is added to the center view."""

    card: ClassVar[RestorerCard] = dataclasses.replace(
        NAFNet.card, title="NAFNet (dual, ours)", bfloat16_db=71.1,
        views=("left", "right", "center"), view_order_matters=True,
        recipe_source="ours, after that of NAFNet on DPDD",
        notes="Nothing published is dual-pixel; this form is ours: six channels in, residual to the center view, the "
              "mean of the views where none was captured. " + NAFNet.card.notes)

    @classmethod
    def trunk_views(cls) -> tuple[str, ...]:
        """Return the views that the convolutions see, the first among the card's."""
        return ("left", "right")


def _check(name: str, width: int, encoder_blocks: Sequence[int], middle_blocks: int, decoder_blocks: Sequence[int],
           train_size: Sequence[int] | None) -> None:
    """Raise `OptionError` for settings that no network can have."""
    if not encoder_blocks or len(decoder_blocks) != len(encoder_blocks) or \
            min(*encoder_blocks, *decoder_blocks, middle_blocks) < 0:
        raise OptionError(f"{name}: expected encoder_blocks and decoder_blocks for the same one level or more, none "
                          f"negative, and middle_blocks of at least 0; found {list(encoder_blocks)}, "
                          f"{list(decoder_blocks)} and {middle_blocks}")
    if width < 1:
        raise OptionError(f"{name}.width: expected a positive number, found {width}")
    if train_size is not None and (len(train_size) != 2 or min(train_size) < 1):
        raise OptionError(f"{name}.train_size: expected rows and columns of the training crops, both positive, or "
                          f"null; found {list(train_size)}")
