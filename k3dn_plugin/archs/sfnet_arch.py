"""SFNet: selective frequency network (Cui, Tao, Bing, Ren, Gao, Cao, Huang, Knoll, ICLR 2023).

A multi-input U-net of three scales whose residual blocks split the features into their mean and the rest, over
the whole map and over its four quadrants, and weigh both anew; the last block of each stage also splits them by a
predicted low-pass kernel. Published are networks for other tasks and, for DPDD, result images and two scores: no
defocus weights, no dual-pixel network, no evaluation (docs/networks/sfnet.md). The single-image network here is the
published one; `SFNetDual` is ours. All statistics are of the whole image, so it is restored whole, padded by
reflection to a multiple of 8.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.archs.multi_scale import MultiScaleRestorer
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.frequency_split import FrequencySplit, MeanSplit, map_mean
from k3dn_plugin.layers.local_mean import local_mean
from k3dn_plugin.layers.multi_input import Up, decode_scales, encode_scales, image_pyramid
from k3dn_plugin.layers.residual import at_least_float32, without_autocast
from k3dn_plugin.registry import ARCHS

STRIDE = 8          # of the quarter-size map, 2 x 2 quadrants
SMALLEST = 16       # the 5 x 5 kernels reflect two pixels at quarter size
GROUPS = 8
KERNEL_SIZES = (3, 5)


class Conv(nn.Conv2d):
    """Convolution that keeps the size but for its stride, GELU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1,
                 gelu: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
        self.gelu = gelu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        out = super().forward(x)
        return F.gelu(out) if self.gelu else out


class Pooling:
    """How the means of the features are taken: over the map, or over a share of it around each pixel.

    Args:
        share: side of the window as a share of the map's, (numerator, denominator); None takes the whole map.
    """

    def __init__(self, share: tuple[int, int] | None = None) -> None:
        self.share = share

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return means of (..., H, W): (..., 1, 1), or (..., H, W) where they are local."""
        if self.share is None:
            return map_mean(x)
        part, whole = self.share
        window = x.shape[-2] * part // whole, x.shape[-1] * part // whole
        if min(window) < 1:
            raise SizeError(f"local pooling over {part} / {whole} of a map of {x.shape[-2]} x {x.shape[-1]}: expected "
                            "windows of at least one pixel; give larger images or set local_pool to null")
        return local_mean(x, window)


class QuadrantSplit(nn.Module):
    """high x (x - mean) + low x mean in each of 2 x 2 quadrants, whose means and weights are their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.high = nn.Parameter(torch.zeros(4 * channels))
        self.low = nn.Parameter(torch.zeros(4 * channels))

    def forward(self, x: torch.Tensor, pooling: Pooling) -> torch.Tensor:
        """(B, C, H, W), both sides even -> the same shape."""
        batch, channels, height, width = x.shape
        quadrants = x.view(batch, channels, 2, height // 2, 2, width // 2).transpose(3, 4)
        mean = pooling(quadrants).to(x.dtype)
        high, low = (weight.view(channels, 2, 2, 1, 1) for weight in (self.high, self.low))
        return (high * (quadrants - mean) + low * mean).transpose(3, 4).reshape(x.shape)


class PublishedSplit(FrequencySplit):
    """A frequency split with the two vectors that every published file holds and nothing uses."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, kernel_size, groups=GROUPS)
        self.unused_low, self.unused_high = (nn.Parameter(torch.zeros(channels), requires_grad=False)
                                             for _ in range(2))


class Block(nn.Module):
    """x + two convolutions, the features between them split by frequency (`docs/networks/sfnet.md`, section 4.2).

    Args:
        last: whether it is the last of a stage, which also splits by predicted kernels.
    """

    def __init__(self, channels: int, *, last: bool = False) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels)
        self.conv2 = Conv(channels, channels, gelu=False)
        half = channels // 2
        self.frequency = nn.ModuleList(PublishedSplit(half, size) for size in KERNEL_SIZES if last)
        self.whole = MeanSplit(half)
        self.quadrants = QuadrantSplit(half)
        self.local = Pooling()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W), both sides even -> the same shape."""
        pooling = Pooling() if self.training else self.local
        halves = self.conv1(x).chunk(2, 1)
        if self.frequency:
            halves = [split(half, mean=pooling(half)) for split, half in zip(self.frequency, halves)]
        first, second = halves
        joined = torch.cat([self.whole(first, pooling(first)), self.quadrants(second, pooling)], 1)
        return x + self.conv2(joined)


class ScaleInput(nn.Module):
    """Shallow features of the image at a coarser scale: four convolutions and an instance norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Conv(in_channels, channels // 4), Conv(channels // 4, channels // 2, 1),
            Conv(channels // 2, channels // 2), Conv(channels // 2, channels, 1, gelu=False))
        self.norm = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        features = self.body(x)
        with without_autocast(features):
            return self.norm(at_least_float32(features).to(self.norm.weight.dtype)).to(features.dtype)


class Merge(Conv):
    """3x3 convolution over the features from above and those of the image, in this order."""

    def __init__(self, channels: int) -> None:
        super().__init__(2 * channels, channels, gelu=False)

    def forward(self, features: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Two of (B, C, H, W) -> (B, C, H, W)."""
        return super().forward(torch.cat([features, other], 1))


@ARCHS.register_module()
class SFNet(MultiScaleRestorer):
    """The published single-image network, 3 channels in and out.

    Args:
        num_res: blocks in each of the six stages.
        base_channels: width at full size, a multiple of 16; half and quarter size have two and four times as many.
        local_pool: base size of the published test-time pooling: in evaluation, means are taken over windows of
            `local_pool` / `local_pool_crop` of the map's sides around each pixel. null, the default, pools
            globally, as training and its validation do. Other tasks publish 80 to 246; none is known for DPDD.
        local_pool_crop: side of the training crops that the base size refers to.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="SFNet", bfloat16_db=69.8,
        paper="Cui, Tao, Bing, Ren, Gao, Cao, Huang, Knoll: Selective Frequency Network for Image Restoration",
        year=2023, venue="ICLR", official_license="MIT",
        views=("center",), size_rule=SizeRule(multiple=(STRIDE, STRIDE), minimum=(SMALLEST, SMALLEST)),
        tiling="unsafe", receptive_margin=64, view_order_matters=False,
        recipe_source="official code for motion deblurring; that for defocus is not published",
        notes="Published without weights, code or evaluation for defocus; that DPDD's scores come from this very "
              "network is inferred. Each quadrant of the image has weights of its own and all means are of the "
              "whole image, so tiles change the result. `local_pool` is the published test-time pooling of other "
              "tasks. Restoring leaves out the two coarser outputs, which only training needs and published counts "
              "include.")

    tiny_arguments: ClassVar[dict] = {"num_res": 2, "base_channels": 16}

    def __init__(self, *, num_res: int = 16, base_channels: int = 32, local_pool: int | None = None,
                 local_pool_crop: int = 256) -> None:
        super().__init__()
        if num_res < 1 or base_channels < 2 * GROUPS or base_channels % (2 * GROUPS):
            raise OptionError(f"{type(self).__name__}: expected num_res of at least 1 and base_channels that are a "
                              f"positive multiple of {2 * GROUPS}; found {num_res} and {base_channels}")
        if local_pool is not None and not 1 <= local_pool <= local_pool_crop:
            raise OptionError(f"{type(self).__name__}.local_pool: expected 1 to local_pool_crop "
                              f"({local_pool_crop}), or null for global pooling; found {local_pool}")
        self.local_pool, self.local_pool_crop = local_pool, local_pool_crop
        channels = 3 * len(self.card.views)
        full, half, quarter = base_channels, 2 * base_channels, 4 * base_channels

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, last=index == num_res - 1) for index in range(num_res)))

        self.extract = nn.ModuleList([Conv(channels, full), Conv(full, half, stride=2),
                                      Conv(half, quarter, stride=2)])
        self.encoder = nn.ModuleList([stage(full), stage(half), stage(quarter)])
        self.half_input, self.half_merge = ScaleInput(channels, half), Merge(half)
        self.quarter_input, self.quarter_merge = ScaleInput(channels, quarter), Merge(quarter)
        self.decoder = nn.ModuleList([stage(quarter), stage(half), stage(full)])
        self.up = nn.ModuleList(Up(wide, narrow, bias=True, activation=F.gelu)
                                for wide, narrow in ((quarter, half), (half, full)))
        self.reduce = nn.ModuleList([Conv(quarter, half, 1), Conv(half, full, 1)])
        self.out = nn.ModuleList(Conv(width, 3, gelu=False) for width in (quarter, half, full))
        for block in self.modules():
            if isinstance(block, Block) and local_pool is not None:
                block.local = Pooling((local_pool, local_pool_crop))

    @property
    def size_rule(self) -> SizeRule:
        """Multiples of 8; at least 16, or what leaves the smallest map a window where pooling is local."""
        if self.local_pool is None:
            return self.card.size_rule
        smallest = max(SMALLEST, STRIDE * -(-self.local_pool_crop // self.local_pool))
        return SizeRule(multiple=(STRIDE, STRIDE), minimum=(smallest, smallest))

    def scales(self, views: torch.Tensor, *, full_only: bool = False) -> list[torch.Tensor]:
        """Return images of full, half and quarter size, or the first of them (`docs/networks/sfnet.md`, section 6)."""
        images = image_pyramid(views)
        e1, e2, e3 = encode_scales(images, extract=self.extract, stages=self.encoder,
                                   inputs=(self.half_input, self.quarter_input),
                                   merges=(self.half_merge, self.quarter_merge))
        decoded = decode_scales(e3, (e2, e1), stages=self.decoder, up=self.up, reduce=self.reduce)
        return [out(features) + self.residual(image) for out, features, image in
                zip(reversed(self.out), decoded[:1] if full_only else decoded, images)]


@ARCHS.register_module()
class SFNetDual(SFNet):
    """Our extension of SFNet to dual-pixel pairs: 6 channels in, the mean of the views as residual.

    A dual-pixel score is published for DPDD, but no network, so no official checkpoint fits.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="SFNet, 6 channels (ours)", bfloat16_db=68.9, paper=SFNet.card.paper, year=2023, venue="ICLR",
        official_license=SFNet.card.official_license, views=("left", "right"), size_rule=SFNet.card.size_rule,
        tiling="unsafe", receptive_margin=64, recipe_source="ours",
        notes="Our own dual-pixel form of the published single-image network: both views enter the first "
              "convolution and the two coarser inputs, and their mean is added to the output.")
