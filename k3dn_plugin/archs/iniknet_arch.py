"""INIKNet: implicit neural inverse kernels (Quan, Yao, Ji, ICCV 2023), single-image.

A bank of inverse kernels, the same for all pixels, is drawn by small sine networks as ten shapes at seven sizes; a
network chooses for each pixel how much of each size and of each shape to use. It does so at three scales, which a
recurrence joins. The published evaluation reads 8 bits and cuts frames to multiples of 32, so that the last 16
columns of a DPDD frame do not count; here any size is padded by reflection to a multiple of 16. Nothing published is
dual-pixel; `INIKNetDual` is ours. Facts: docs/networks/iniknet.md.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.archs.multi_scale import MultiScaleRestorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.implicit_kernels import ImplicitKernelBank
from k3dn_plugin.layers.layer_norm import ChannelNorm
from k3dn_plugin.layers.macs import record_macs
from k3dn_plugin.layers.multi_input import Up
from k3dn_plugin.layers.residual import at_least_float32, without_autocast
from k3dn_plugin.registry import ARCHS

STRIDE = 16
COLORS = 3


class Conv(nn.Conv2d):
    """Convolution without bias, edges reflected, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, padding_mode="reflect", bias=False)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        out = super().forward(x)
        return F.relu(out) if self.relu else out


class Residual(nn.Sequential):
    """x + two convolutions of x, nothing after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__(Conv(channels, channels), Conv(channels, channels, relu=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + super().forward(x)


def residuals(channels: int, count: int) -> nn.Sequential:
    """Return `count` residual blocks in sequence."""
    return nn.Sequential(*(Residual(channels) for _ in range(count)))


class FeatureNet(nn.Module):
    """A U-net of three levels that gives features of an image's own size (`docs/networks/iniknet.md`, section 4.1)."""

    def __init__(self, in_channels: int, width: int, blocks: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.extract = nn.ModuleList([Conv(in_channels, width), Conv(width, widths[1], stride=2),
                                      Conv(widths[1], widths[2], stride=2)])
        self.encoder = nn.ModuleList(residuals(channels, blocks) for channels in widths)
        self.up = nn.ModuleList([Up(widths[2], widths[1]), Up(widths[1], width)])
        self.join = nn.ModuleList([Conv(widths[2], widths[1]), Conv(widths[1], width)])
        self.decoder = nn.ModuleList(residuals(channels, blocks) for channels in (widths[1], width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W), both sides multiples of 4 -> (B, width, H, W)."""
        skips = []
        for extract, encoder in zip(self.extract, self.encoder):
            x = encoder(extract(x))
            skips.append(x)
        skips.pop()
        for up, join, decoder in zip(self.up, self.join, self.decoder):
            x = decoder(join(torch.cat([up(x), skips.pop()], 1)))
        return x


class Cell(nn.Module):
    """A convolutional LSTM cell (`docs/networks/iniknet.md`, section 4.2); gates and state in float32 at least."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.body = residuals(2 * width, blocks)
        self.gates = nn.Conv2d(2 * width, 4 * width, 1)

    def forward(self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the new (hidden, cell) state, each (B, width, H, W), for features x of that shape."""
        hidden, cell = state
        gates = self.gates(self.body(torch.cat([x, hidden.to(x.dtype)], 1)))
        enter, forget, leave, content = at_least_float32(gates).chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * content.tanh()
        return leave.sigmoid() * cell.tanh(), cell


class ScaleRecurrence(nn.Module):
    """A recurrence from the fine scale to the coarse one and back (`docs/networks/iniknet.md`, section 4.3)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.to_coarse, self.to_fine = Cell(width, blocks), Cell(width, blocks)
        self.norm = ChannelNorm(width)

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Maps of full, half and quarter size, of `width` channels each -> the same shapes."""
        state, seen = None, []
        for x in features:
            x = self.norm(x)
            state = _zeros(x) if state is None else tuple(F.avg_pool2d(part, 2) for part in state)
            state = self.to_coarse(x, state)
            seen.append(state[0].to(x.dtype))
        state, found = None, []
        for x in reversed(seen):
            state = _zeros(x) if state is None else tuple(
                F.interpolate(part, scale_factor=2, mode="bilinear", align_corners=False) for part in state)
            state = self.to_fine(x, state)
            found.append(state[0].to(x.dtype))
        return [x + y for x, y in zip(features, reversed(found))]


def _zeros(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first state of a recurrence."""
    return torch.zeros_like(at_least_float32(x)), torch.zeros_like(at_least_float32(x))


@ARCHS.register_module()
class INIKNet(MultiScaleRestorer):
    """The published single-image network; blue, green, red inside.

    Args:
        width: channels at full size; half and quarter size of the feature network have two and four times as many.
        unet_blocks, recurrent_blocks: residual blocks in each stage of the feature network, in each recurrent cell.
        bases: shapes of inverse kernels.
        max_kernel_size: side of the largest; each shape is drawn at 3 x 3, 5 x 5, ... up to it.
        hidden: width of the sine networks that draw them.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="INIKNet", bfloat16_db=74.2,
        paper="Quan, Yao, Ji: Single Image Defocus Deblurring via Implicit Neural Inverse Kernels",
        year=2023, venue="ICCV", official_license="MIT", views=("center",), channel_order="bgr",
        size_rule=SizeRule(multiple=(STRIDE, STRIDE), minimum=(2 * STRIDE, 2 * STRIDE)),
        # A pixel sees up to 255 to each side; tiles that start at multiples of 16 are exact with that margin.
        tiling="exact", receptive_margin=256, view_order_matters=False, recipe_source="official code",
        notes="The published evaluation reads 8 bits, and its score leaves out the last 16 columns of each DPDD frame. "
              "Restoring leaves out the two coarser outputs and the group of no kernel, which published counts "
              "include.")

    tiny_arguments: ClassVar[dict] = {"width": 4, "unet_blocks": 1, "recurrent_blocks": 1, "bases": 2,
                                      "max_kernel_size": 5, "hidden": 8}

    def __init__(self, *, width: int = 32, unet_blocks: int = 2, recurrent_blocks: int = 2, bases: int = 10,
                 max_kernel_size: int = 15, hidden: int = 64) -> None:
        super().__init__()
        if min(width, unet_blocks, recurrent_blocks) < 1:
            raise OptionError(f"{type(self).__name__}: expected width and blocks of at least 1; found {width}, "
                              f"{unet_blocks} and {recurrent_blocks}")
        self.views = len(self.card.views)
        self.features = FeatureNet(COLORS * self.views, width, unet_blocks)
        self.basis_recurrence = ScaleRecurrence(width, recurrent_blocks)
        self.size_recurrence = ScaleRecurrence(width, recurrent_blocks)
        self.bank = ImplicitKernelBank(bases=bases, max_kernel_size=max_kernel_size, hidden=hidden)
        groups = 1 + len(self.bank.sizes)
        self.select_size = nn.Conv2d(width, groups, 1)
        self.select_basis = nn.Conv2d(width, self.views * bases, 1)
        # The first group is that of no kernel; its weights meet zeros, but every file holds them.
        self.mix = nn.Conv2d(groups * COLORS * self.views * bases, COLORS, 1)

    def scales(self, views: torch.Tensor, *, full_only: bool = False) -> list[torch.Tensor]:
        """Return images of full, half and quarter size, or the first (`docs/networks/iniknet.md`, section 6)."""
        images = [views] + [F.interpolate(views, scale_factor=1 / factor, mode="bilinear", align_corners=False)
                            for factor in (2, 4)]
        features = [self.features(image) for image in images]
        by_basis, by_size = self.basis_recurrence(features), self.size_recurrence(features)
        kernels, wanted = self.bank(), 1 if full_only else len(images)
        return [self.residual(image) + self.deblurred(image, kernels, size, basis)
                for image, size, basis in list(zip(images, by_size, by_basis))[:wanted]]

    def deblurred(self, image: torch.Tensor, kernels: list[torch.Tensor], by_size: torch.Tensor,
                  by_basis: torch.Tensor) -> torch.Tensor:
        """Return what the chosen kernels add to the image, (B, 3, H, W).

        Sizes follow one another, so that the responses of one size are held at a time.

        Args:
            image: (B, 3V, H, W).
            kernels: of each size, (bases, k, k).
            by_size, by_basis: (B, width, H, W) features that choose.
        """
        with without_autocast(image):
            share = self.select_size(by_size.to(self.select_size.weight.dtype)).softmax(1).to(image.dtype)
        basis = self.select_basis(by_basis).to(image.dtype)
        colors, bases = COLORS * self.views, self.bank.bases
        mixing = self.mix.weight.unflatten(1, (-1, colors * bases))
        assert self.mix.bias is not None
        out = self.mix.bias[:, None, None]
        for group, taps in enumerate(kernels, start=1):
            weight = taps.to(image.dtype).repeat(colors, 1, 1)[:, None]
            responses = F.conv2d(image, weight, padding=taps.shape[-1] // 2, groups=colors)
            chosen = basis * share[:, group:group + 1]
            record_macs(responses.numel() + chosen.numel())
            weighed = responses.unflatten(1, (self.views, COLORS, bases)) * chosen.unflatten(1, (self.views, 1, bases))
            out = out + F.conv2d(weighed.flatten(1, 3), mixing[:, group])
        return out


@ARCHS.register_module()
class INIKNetDual(INIKNet):
    """Our extension of INIKNet to dual-pixel pairs; nothing like it was published.

    Both views enter the feature network. The kernels filter both views: their size, which follows the disparity, is
    chosen once for a pixel, their shape for each view, since the two views' point spread functions are mirrored. The
    mean of the views is added.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="INIKNet, two views (ours)", bfloat16_db=84.0, paper=INIKNet.card.paper, year=2023, venue="ICCV",
        official_license=INIKNet.card.official_license, views=("left", "right"), channel_order="bgr",
        size_rule=INIKNet.card.size_rule, tiling="exact", receptive_margin=INIKNet.card.receptive_margin,
        recipe_source="ours",
        notes="Our own dual-pixel form of the published single-image network: both views enter the first convolution, "
              "the kernels filter both, their size chosen once for a pixel and their shape for each view, and the mean "
              "of the views is added to the output.")
