"""DDDNet: dual-pixel exploration, depth and image together (Pan et al., CVPR 2021).

Two networks in a row. Estd is a small stereo network that gives the defocus disparity of the pair; Esti is
a multi-patch encoder and decoder that restores the image and refines the disparity. The published test of
DPDD feeds whole frames cut to 8 bits, clamps the result, and never leaves the training mode of the batch
norms (`batch_statistics`). Neither the training code nor the losses were released.

Much of the released Estd is never used; its weights are kept, frozen, so that checkpoints fit.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.cost_volume import shifted_cost_volume
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.layers.residual import at_least_float32, without_autocast
from k3dn_plugin.registry import ARCHS


class SwitchableNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm that can use the statistics of what it is given in evaluation too, keeping its own."""

    batch_statistics = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.batch_statistics and not self.training:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)


class Norm2d(SwitchableNorm, nn.BatchNorm2d):
    """`SwitchableNorm` of images."""


class Norm3d(SwitchableNorm, nn.BatchNorm3d):
    """`SwitchableNorm` of volumes."""


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU.

    Args:
        layer: `nn.Conv2d`, `nn.Conv3d` or `nn.ConvTranspose3d`.
        plain: the convolution alone. The norm is there all the same, as in the released network, frozen.
    """

    def __init__(self, layer: type[nn.Module], in_channels: int, out_channels: int, kernel_size: int = 3, *,
                 stride: int = 1, dilation: int = 1, plain: bool = False):
        super().__init__()
        padding = dilation * ((kernel_size - 1) // 2)
        self.conv = layer(in_channels, out_channels, kernel_size, stride=stride, padding=padding,
                          dilation=dilation, bias=False)
        self.bn = (Norm2d if layer is nn.Conv2d else Norm3d)(out_channels)
        self.plain = plain
        if plain:
            frozen(self.bn)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if self.plain else F.relu(self.bn(self.conv(x)))


def frozen(module: nn.Module) -> nn.Module:
    """Return a part that the released network holds but never uses: kept for its weights, not trained."""
    return module.requires_grad_(False)


class FeatureExtractor(nn.Module):
    """Features of one view at full size: dilated convolutions and two pooled contexts."""

    def __init__(self, channels: int):
        super().__init__()
        c, deep = channels, 4 * channels
        self.start = nn.Sequential(ConvNorm(nn.Conv2d, 3, c), ConvNorm(nn.Conv2d, c, 2 * c))
        self.layer1 = nn.Sequential(ConvNorm(nn.Conv2d, 2 * c, deep, dilation=4),
                                    ConvNorm(nn.Conv2d, deep, deep, dilation=8))
        self.branch1 = self.context(64, deep, c)
        self.branch3 = self.context(16, deep, c)
        self.end = nn.Sequential(ConvNorm(nn.Conv2d, deep + 2 * c, 3 * c),
                                 ConvNorm(nn.Conv2d, 3 * c, c, 1, plain=True))

    @staticmethod
    def context(side: int, in_channels: int, out_channels: int) -> nn.Sequential:
        """Return means over blocks (what is left over at the edges dropped), then a 1x1 convolution.

        Its padding of 1 puts a frame of ReLU(norm(0)) around the small map, which is stretched over the
        image with it: odd, but the released weights were trained so.
        """
        return nn.Sequential(nn.AvgPool2d(side), nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, padding=1, bias=False), Norm2d(out_channels), nn.ReLU()))

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), H and W at least 64 -> (B, channels, H, W)."""
        x = self.layer1(self.start(view))
        contexts = [F.interpolate(branch(x), x.shape[-2:], mode="bilinear", align_corners=True)
                    for branch in (self.branch1, self.branch3)]
        return self.end(torch.cat([*contexts, x], 1))


class UpJoin(nn.Module):
    """Double a volume's size, convolve, join the finer volume, convolve."""

    def __init__(self, first: type[nn.Module], in_channels: int, out_channels: int):
        super().__init__()
        kernel_size, stride = (4, 2) if first is nn.ConvTranspose3d else (3, 1)
        self.conv1 = ConvNorm(first, in_channels, out_channels, kernel_size, stride=stride)
        self.conv2 = ConvNorm(nn.Conv3d, 2 * out_channels, out_channels)

    def forward(self, x: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
        return self.conv2(torch.cat([self.conv1(x), finer], 1))


class Matching(nn.Module):
    """3-D convolutions over the cost volume, (B, 2c, D, H, W) -> (B, 1, D, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        c, mid, deep = channels, channels * 3 // 2, 2 * channels
        deeper, deepest = 3 * channels, 4 * channels

        def pair(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(ConvNorm(nn.Conv3d, before, after, stride=2),
                                 ConvNorm(nn.Conv3d, after, after))

        self.start = nn.Sequential(ConvNorm(nn.Conv3d, 2 * c, c), ConvNorm(nn.Conv3d, c, mid, stride=2),
                                   ConvNorm(nn.Conv3d, mid, mid))
        self.conv1a = pair(mid, deep)
        self.conv2a = frozen(pair(deep, deeper))
        self.conv3a = frozen(pair(deeper, deepest))
        self.deconv3a = frozen(UpJoin(nn.ConvTranspose3d, deepest, deeper))
        self.deconv2a = frozen(UpJoin(nn.ConvTranspose3d, deeper, deep))
        self.deconv1a = UpJoin(nn.Conv3d, deep, mid)
        self.end = nn.Sequential(ConvNorm(nn.ConvTranspose3d, mid, mid // 2, 4, stride=2),
                                 ConvNorm(nn.Conv3d, mid // 2, 1, plain=True))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        fine = self.start(volume)
        return self.end(self.deconv1a(self.conv1a(fine), fine))


class DepthNetwork(nn.Module):
    """Estd: the defocus disparity of a pair.

    Args:
        channels: of the features of a view.
        max_disparity: number of disparities, 0, 1, ...; a multiple of 12. The volume has a third of them.
        batch_statistics: normalize by the statistics of the image at hand in evaluation too.
    """

    def __init__(self, *, channels: int = 32, max_disparity: int = 12, batch_statistics: bool = False):
        super().__init__()
        if channels < 4 or channels % 4 or max_disparity < 12 or max_disparity % 12:
            raise OptionError("DDDNet: expected channels in multiples of 4 and max_disparity in multiples of "
                              f"12; found {channels} and {max_disparity}")
        self.max_disparity = max_disparity
        self.levels = max_disparity // 3
        self.feature = FeatureExtractor(channels)
        self.features = frozen(FeatureExtractor(channels))
        self.matching = Matching(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, SwitchableNorm):
                module.batch_statistics = batch_statistics

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) each, RGB in [0, 1], H and W multiples of 4 and at least 64 -> (B, H, W), an
        expectation over 0 ... max_disparity - 1.
        """
        # One view after the other: in training each has batch statistics of its own.
        volume = shifted_cost_volume(self.feature(left), self.feature(right), self.levels)
        cost = at_least_float32(self.matching(volume))
        cost = F.interpolate(cost, (self.max_disparity, *cost.shape[-2:]), mode="trilinear",
                             align_corners=False)[:, 0]
        disparities = torch.arange(self.max_disparity, dtype=cost.dtype, device=cost.device)
        return (torch.softmax(-cost, 1) * disparities[:, None, None]).sum(1)


def residual(channels: int) -> nn.Sequential:
    """Return the two convolutions of a residual block; the sum is `Coder`'s."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(channels, channels, 3, padding=1))


class Coder(nn.Module):
    """Named layers in sequence, residual blocks among them. No activation outside the blocks."""

    def run(self, x: torch.Tensor, *numbers: int) -> torch.Tensor:
        for number in numbers:
            layer = getattr(self, f"layer{number}")
            x = x + layer(x) if isinstance(layer, nn.Sequential) else layer(x)
        return x

    def initialize(self) -> None:
        """Normal weights of deviation 0.5 sqrt(2 / (k k out)), zero biases."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                taps = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=0.5 * (2 / taps) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Encoder(Coder):
    """(B, in, H, W) -> (B, 4c, H/4, W/4)."""

    def __init__(self, in_channels: int, c: int):
        super().__init__()
        self.layer1 = PreciseConv2d(in_channels, c, 3, padding=1)
        self.layer2, self.layer3 = residual(c), residual(c)
        self.layer5 = PreciseConv2d(c, 2 * c, 3, stride=2, padding=1)
        self.layer6, self.layer7 = residual(2 * c), residual(2 * c)
        self.layer9 = PreciseConv2d(2 * c, 4 * c, 3, stride=2, padding=1)
        self.layer10, self.layer11 = residual(4 * c), residual(4 * c)
        self.initialize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x, 1, 2, 3, 5, 6, 7, 9, 10, 11)


class Decoder(Coder):
    """(B, 4c, H/4, W/4) -> (B, out, H, W)."""

    def __init__(self, out_channels: int, c: int):
        super().__init__()
        self.layer13, self.layer14 = residual(4 * c), residual(4 * c)
        self.layer16 = nn.ConvTranspose2d(4 * c, 2 * c, 4, stride=2, padding=1)
        self.layer17, self.layer18 = residual(2 * c), residual(2 * c)
        self.layer20 = nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1)
        self.layer21, self.layer22 = residual(c), residual(c)
        self.layer24 = PreciseConv2d(c, out_channels, 3, padding=1)
        self.initialize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x, 13, 14, 16, 17, 18, 20, 21, 22, 24)


class ChannelAttention(nn.Module):
    """x + gamma x channels mixed by attention, in which the least similar channels weigh most.

    The released network subtracts the similarity from its row maximum before the softmax, and sums over
    positions instead of averaging, so that it is nearly a choice of one channel; both are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)
        energy = flat @ flat.transpose(1, 2)
        attention = torch.softmax(energy.amax(-1, keepdim=True) - energy, -1)
        return self.gamma * (attention @ flat).view_as(x) + x


class NamedConv(nn.Module):
    """A convolution under `conv`, as the released weights have it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class ImageNetwork(nn.Module):
    """Esti: restores the image and refines the disparity, from quarters, halves and the whole.

    Args:
        channels: width at full size; a quarter of that at 1/4.
    """

    def __init__(self, *, channels: int = 32):
        super().__init__()
        if channels < 1:
            raise OptionError(f"DDDNet: expected at least 1 channel, found {channels}")
        self.encoder1, self.encoder2, self.encoder3 = (Encoder(7, channels) for _ in range(3))
        self.decoder1, self.decoder2, self.decoder3, self.decoderd = (
            Decoder(out, channels) for out in (3, 7, 7, 1))
        self.cam_attention = ChannelAttention()
        self.down = NamedConv(4, 4 * channels, 8, 4, 2)
        self.conv = frozen(NamedConv(4 * channels, 1, 3, 1, 1))

    def forward(self, left: torch.Tensor, right: torch.Tensor,
                blur_disparity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) twice and (B, H, W), sizes multiples of 8 -> image (B, 3, H, W), disparity (B, H, W).

        Patches are convolved each on its own, so their seams are part of the function.
        """
        disparity = blur_disparity[:, None].to(left.dtype)
        whole = torch.cat([left, right, disparity], 1)
        halves = whole.chunk(2, -2)
        joined = [torch.cat([self.encoder3(patch) for patch in half.chunk(2, -1)], -1) for half in halves]
        quarters = torch.cat(joined, -2)
        halves = torch.cat([self.encoder2(half + self.decoder3(features))
                            for half, features in zip(halves, joined)], -2) + quarters
        features = self.encoder1(whole + self.decoder2(halves)) + halves
        # The attention is nearly one-hot: rounding would change which channel it takes.
        with without_autocast(left):
            guide = self.cam_attention(torch.sigmoid(self.down(torch.cat([left - right, disparity], 1))))
        features = features + guide
        return self.decoder1(features), self.decoderd(features)[:, 0]


@ARCHS.register_module()
class DDDNet(Restorer):
    """Estd, then Esti. The defaults are the released network.

    Args:
        depth_channels: width of Estd. image_channels: width of Esti.
        max_disparity: of Estd; the disparity lies in [0, max_disparity - 1].
        batch_statistics: let Estd normalize by the image at hand in evaluation, as the published test of
            DPDD does (probably by oversight); needed for its scores.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DDDNet", bfloat16_db=56.2,
        paper="Pan, Chowdhury, Hartley, Liu, Zhang, Li: Dual Pixel Exploration: Simultaneous Depth "
              "Estimation and Image Restoration",
        year=2021, venue="CVPR", official_license="none given, academic use only",
        size_rule=SizeRule(multiple=(8, 8), minimum=(64, 64)),
        # Patches are quarters of the image, and the channel attention sums over all of it.
        tiling="unsafe", receptive_margin=64,
        recipe_source="ours; training code and losses were not released",
        notes="The published scores on DPDD use 8-bit images and `batch_statistics: true`. Disparities are "
              "in the network's own levels, nearer being larger, 0 the farthest.")

    tiny_arguments: ClassVar[dict] = {"depth_channels": 8, "image_channels": 4}

    def __init__(self, *, depth_channels: int = 32, image_channels: int = 32, max_disparity: int = 12,
                 batch_statistics: bool = False):
        super().__init__()
        self.estd = DepthNetwork(channels=depth_channels, max_disparity=max_disparity,
                                 batch_statistics=batch_statistics)
        self.esti = ImageNetwork(channels=image_channels)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) at a legal size -> (B, 3, H, W), not clamped."""
        return self.estimate(views)[0]

    def estimate(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 6, H, W) at a legal size -> image (B, 3, H, W), refined and blur disparity (B, H, W)."""
        left, right = views[:, :3], views[:, 3:]
        blur_disparity = self.estd(left, right)
        return (*self.esti(left, right, blur_disparity), blur_disparity)

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, and (B, 1, H, W) `blur_disparity` (of the pair) and `disparity_map` (refined)."""
        views, crop = self.prepared(batch)
        image, refined, blur = self.estimate(views)
        return {"restored": crop(image), "blur_disparity": crop(blur[:, None]), "disparity_map": crop(refined[:, None])}
