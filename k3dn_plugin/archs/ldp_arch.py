"""LDP (Yang, Pan, Yang, Hartley, Liu, CVPR 2024): a NAFNet trunk behind a channel attention that a blur map biases.

The released network of 7.62 M parameters. A map of the pair's blur, made by CLIP there and by any blur map module here,
is averaged to 32 x 32 numbers, which are added to the 32 x 32 logits of an attention between channels: the map chooses
how the channels are mixed, the same for all pixels. There is no residual to an image. The published test script reads
8 bits, restores whole frames and clamps; zeros are appended to features inside, so that any size fits.
"""
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer, check_pair
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.naf import NAFTrunk
from k3dn_plugin.layers.residual import at_least_float32, without_autocast
from k3dn_plugin.registry import ARCHS, MODULES

NORM_FLOOR = 1e-12


class BlurPriorAttention(nn.Module):
    """Attention between channels whose logits a picture of the blur is added to (`docs/networks/ldp.md`, section 4).

    Args:
        channels: C.
        heads: a divisor of C; the picture has C / heads rows and columns, and is the same for all heads.
        bias: of the convolutions.
    """

    def __init__(self, channels: int, heads: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.heads, self.side = heads, channels // heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        # In the released weights and never applied there; kept so that a file can be written back whole.
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.qkv_dwconv.requires_grad_(False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: torch.Tensor, blur_map: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, 1, h, w) -> (B, C, H, W)."""
        query, key, value = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        with without_autocast(x):
            query, key = at_least_float32(query), at_least_float32(key)
            lengths = [rows.norm(dim=-1, keepdim=True).clamp(min=NORM_FLOOR) for rows in (query, key)]
            cosines = (query @ key.transpose(-2, -1)) / (lengths[0] * lengths[1].transpose(-2, -1))
            picture = F.adaptive_avg_pool2d(blur_map.to(cosines.dtype), (self.side, self.side))
            mixing = (cosines * self.temperature + picture).softmax(-1)
        return self.project_out((mixing.to(value.dtype) @ value).view_as(x))


@ARCHS.register_module()
class LDP(Restorer):
    """The defaults are the released network, without a source of its blur map.

    Args:
        width: channels of the embedding, of the attention and of the trunk's first level.
        heads: of the attention.
        encoder_blocks: at each level of the trunk, from full size inwards.
        middle_blocks: below the last level.
        decoder_blocks: at each level, from the innermost out.
        bias: of embedding, attention, skip and last convolution; the trunk's own always have biases.
        blur_map: the blur map module, a mapping with `type`; null for a map of zeros, which says the same as any
            constant one.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="LDP", bfloat16_db=56.0,
        paper="Yang, Pan, Yang, Hartley, Liu: LDP: Language-driven Dual-Pixel Image Defocus Deblurring Network",
        year=2024, venue="CVPR", official_license="none stated", views=("left", "right"),
        # The attention and its picture are of the whole image: a tile is mixed in another way.
        tiling="unsafe", receptive_margin=64,
        recipe_source="losses by name from the paper; all numbers are our assumption",
        notes="Restores with the map that `blur_map` chooses, or that is given (`forward(lq, blur_map=...)`). The "
              "released weights want that of the authors' CLIP script: `FileBlurMap`. Without one (`blur_map: null`) "
              "they restore as if the blur were equal everywhere.")

    tiny_arguments: ClassVar[dict] = {
        "width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1],
        "blur_map": {"type": "DisparityBlurMap", "vector_size": 8,
                     "disparity": {"type": "CostVolumeDisparity", "pools": [6, 3]}}}

    slots: ClassVar[tuple[str, ...]] = ("blur_map",)

    def __init__(self, *, width: int = 32, heads: int = 1, encoder_blocks: Sequence[int] = (2, 2, 2, 2),
                 middle_blocks: int = 2, decoder_blocks: Sequence[int] = (2, 2, 2, 2), bias: bool = False,
                 blur_map: dict[str, Any] | None = None) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise OptionError(f"LDP.heads: expected a divisor of the {width} channels (width), found {heads}")
        if not encoder_blocks or len(encoder_blocks) != len(decoder_blocks) or (
                min(*encoder_blocks, *decoder_blocks, middle_blocks) < 0):
            raise OptionError("LDP: expected encoder_blocks and decoder_blocks for the same levels, and no count below "
                              f"0; found {list(encoder_blocks)}, {list(decoder_blocks)} and {middle_blocks}")
        self.embed = nn.Conv2d(6, width, 3, padding=1, bias=bias)
        self.attention = BlurPriorAttention(width, heads, bias=bias)
        self.trunk = NAFTrunk(width, width, width=width, encoder_blocks=encoder_blocks, middle_blocks=middle_blocks,
                              decoder_blocks=decoder_blocks)
        self.skip = nn.Conv2d(width, width, 1, bias=bias)
        self.out = nn.Conv2d(width, 3, 3, padding=1, bias=bias)
        self.blur_map: Any = None if blur_map is None else MODULES.build(blur_map)

    @property
    def maps(self) -> tuple[str, ...]:
        """`blur_map`, where it comes with the sample and not from the pair."""
        return ("blur_map",) if hasattr(self.blur_map, "of_sample") else ()

    def maps_of(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the sample's blur map, where it comes with the sample."""
        return {name: self.blur_map.of_sample(sample) for name in self.maps}

    def maps_hash(self) -> str:
        """Of the files of blur maps, where there are any."""
        return self.blur_map.content_hash() if self.maps else ""

    def forward(self, lq: torch.Tensor, center: torch.Tensor | None = None,
                blur_map: torch.Tensor | None = None) -> torch.Tensor:
        """Restore the all-in-focus image.

        Args:
            lq: (B, 6, H, W) in [0, 1], left RGB then right RGB, any H and W.
            center: not used.
            blur_map: (B, 1, h, w), 0 in focus and 1 at the strongest blur; None for that of `self.blur_map`.

        Returns:
            (B, 3, H, W) in the units of [0, 1], not clamped.

        Raises:
            SizeError: an input has another shape.
        """
        check_pair(lq, center)
        return self.guided(lq, self.estimate(lq) if blur_map is None else blur_map)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) in [0, 1] -> (B, 3, H, W), with the map of `self.blur_map`."""
        return self.guided(views, self.estimate(views))

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, and `blur_map` where there is a module for it."""
        lq = batch["lq"]
        check_pair(lq, batch.get("center"))
        found = self.blur_map.of_batch(batch) if hasattr(self.blur_map, "of_batch") else self.estimate(lq)
        prediction = {"restored": self.guided(lq, found)}
        return prediction if self.blur_map is None else {**prediction, "blur_map": found}

    def estimate(self, lq: torch.Tensor) -> torch.Tensor:
        """Return the blur map (B, 1, H, W) of a pair (B, 6, H, W): zeros where there is no module for it."""
        return lq.new_zeros(lq.shape[0], 1, *lq.shape[2:]) if self.blur_map is None else self.blur_map(lq)

    def guided(self, views: torch.Tensor, blur_map: torch.Tensor) -> torch.Tensor:
        """Restore (B, 6, H, W) views under a blur map (B, 1, h, w): (B, 3, H, W).

        Raises:
            SizeError: the map is not one of these images.
        """
        if blur_map.ndim != 4 or blur_map.shape[:2] != (views.shape[0], 1):
            raise SizeError(f"blur_map: expected ({views.shape[0]}, 1, h, w), found {tuple(blur_map.shape)}")
        if blur_map.shape[-2:] != views.shape[-2:]:
            blur_map = F.interpolate(blur_map, size=views.shape[-2:], mode="nearest")
        features = self.attention(self.embed(views), blur_map)
        return self.out(self.trunk(features) + self.skip(features))
