"""K3DN: disparity-aware kernel estimation for dual-pixel defocus deblurring (Yang et al., CVPR 2023).

An encoder, a window-wise deblur module that a disparity feature of the pair steers, and a decoder whose
skips may preserve sharp regions. The same network run backwards reblurs the sharp image, which trains
kernels and disparity without further labels. The published evaluation resizes the 1120 x 1680 views of
DPDD to 1152 x 1792 (bicubic), restores, and resizes back (protocol `k3dn_resize`); here any size is padded
by reflection instead.
"""
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.layers.residual import SLOPE, ResidualBlock, ResidualBlocks
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.layers.windows import FEATURE_STRIDE, grid_of_image, pad_to
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import ARCHS, MODULES


class Down(nn.Conv2d):
    """3x3 convolution of stride 2 without bias, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(super().forward(x), SLOPE)


class Up(nn.ConvTranspose2d):
    """4x4 transposed convolution of stride 2 without bias, leaky ReLU: doubles height and width."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(super().forward(x), SLOPE)


def keep_variance(module: nn.Module) -> None:
    """Start a residual block as the identity, a sampling layer so that its output varies as much as its input."""
    if isinstance(module, ResidualBlock):
        nn.init.kaiming_normal_(module.conv1.weight, a=SLOPE)
        nn.init.zeros_(module.conv2.weight)
    elif isinstance(module, Down):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
    elif isinstance(module, Up):
        # A cell of the output sees 2 x 2 of the 4 x 4 taps.
        nn.init.normal_(module.weight, std=math.sqrt(2 / (1 + SLOPE ** 2) / (4 * module.in_channels)))


@ARCHS.register_module()
class K3DN(Restorer):
    """Disparity-aware deblurring with a trainable set of symmetric kernels. The defaults are the released
    network (configuration L).

    Args:
        base_channels: c, width at half resolution; the deblur module works on 4c channels.
        full_channels: width of the decoder at full resolution, before the six channels of the views join it;
            null takes c. Ours: half of the network's time is spent there, and 16 or 32 channels in all are what
            matrix units are made for.
        encoder_blocks: residual blocks at each level of encoder and decoder.
        window: (rows, columns) of a window at 1/8 resolution, each 2 modulo 4; every window of the image
            gets its own kernel.
        vector_size: length of a window's disparity vector.
        residual: add the center view to the output, and start from exactly that (the last layer starts at
            zero). Ours; the released network has no such path.
        identity_blocks: start every residual block as the identity, and the other convolutions so that they keep
            the variance of their input (He et al., ICCV 2015). Ours: with torch's usual start, each level divides it by
            six, and much of the training goes by before the deblur module matters.
        disparity: the disparity module, a mapping with `type`; null gives every window the same vector.
        deblur: the deblur module; null leaves the features as they are.
        preservation: the preservation module of each skip; null concatenates (the first-stage network).
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="K3DN", bfloat16_db=64.5,
        paper="Yang, Pan, Liu, Liu: "
              "K3DN: Disparity-Aware Kernel Estimation for Dual-Pixel Defocus Deblurring",
        year=2023, venue="CVPR", official_license="none stated",
        views=("left", "right"), value_range=(-0.5, 0.5),
        size_rule=SizeRule(multiple=(144, 112), minimum=(256, 256)),
        # Windows get their kernels from pooled context; tiles that are multiples of a window keep them
        # nearly the same.
        tiling="approximate", receptive_margin=64,
        recipe_source="stages and network from the released code; losses and schedule are our assumption",
        notes="The released network clips its output to [-0.5, 1.5] in image units.")

    tiny_arguments: ClassVar[dict] = {
        "base_channels": 8, "encoder_blocks": 1, "window": [6, 6], "vector_size": 16,
        "disparity": {"type": "CostVolumeDisparity", "pools": [6, 3]},
        "deblur": {"type": "KernelSetDeblur", "blocks": 2},
        "preservation": {"type": "SharpRegionPreservation", "blocks": 1}}

    slots: ClassVar[tuple[str, ...]] = ("disparity", "deblur", "preservation")

    def __init__(self, *, base_channels: int = 48, full_channels: int | None = None, encoder_blocks: int = 4,
                 window: tuple[int, int] = (18, 14), vector_size: int = 256, residual: bool = False,
                 identity_blocks: bool = False,
                 disparity: dict[str, Any] | None = {"type": "CostVolumeDisparity"},  # noqa: B006
                 deblur: dict[str, Any] | None = {"type": "KernelSetDeblur"},  # noqa: B006
                 preservation: dict[str, Any] | None = {"type": "SharpRegionPreservation"}):  # noqa: B006
        super().__init__()
        c = base_channels
        self.window = (window[0], window[1])
        self.vector_size = vector_size
        self.residual = residual
        self.down = nn.ModuleList([Down(6, c), Down(c, 2 * c), Down(2 * c, 4 * c)])
        self.encoder = nn.ModuleList(ResidualBlocks(width, encoder_blocks) for width in (c, 2 * c, 4 * c))
        self.disparity = self.deblur = None
        if disparity is not None:
            self.disparity = MODULES.build(disparity, vector_size=vector_size, window=self.window)
        if deblur is not None:
            self.deblur = MODULES.build(deblur, channels=4 * c, vector_size=vector_size)

        join = {"type": "ConcatSkip"} if preservation is None else preservation
        self.up, self.decoder, self.preservation = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = 4 * c
        for before, after in ((2 * c, 2 * c), (c, c), (6, c if full_channels is None else full_channels)):
            self.up.append(Up(width, after))
            skip = MODULES.build(join, before_channels=before, after_channels=after)
            self.preservation.append(skip)
            width = skip.out_channels
            self.decoder.append(ResidualBlocks(width, encoder_blocks))
        self.out = PreciseConv2d(width, 3, 3, padding=1, bias=False)
        if residual:
            nn.init.zeros_(self.out.weight)
        if identity_blocks:
            self.apply(keep_variance)

    @property
    def size_rule(self) -> SizeRule:
        """Multiples of a whole window, so that windows and disparity vectors never drift apart."""
        smallest = getattr(self.disparity, "minimum", 1)
        rows, columns = self.window
        return SizeRule(multiple=(FEATURE_STRIDE * rows, FEATURE_STRIDE * columns), minimum=(smallest, smallest))

    def forward(self, lq: torch.Tensor, center: torch.Tensor | None = None) -> torch.Tensor:
        return self._deblur_pair({"lq": lq, "center": center})[0]

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, and `disparity` for a reblur module."""
        restored, disparity = self._deblur_pair(batch)
        return {"restored": restored, "disparity": disparity}

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) in [-0.5, 0.5] at a legal size -> (B, 3, H, W)."""
        base = mean_of_views(views) if self.residual else None
        return self.core(views, self.estimate_disparity(views), base=base)

    def reblur(self, sharp: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Return the blurred image that the sharp one becomes under the kernels of `disparity`.

        Args:
            sharp: (B, 3, H, W) in [0, 1].
            disparity: of the blurred pair of the same size.

        Raises:
            OptionError: the deblur module is not reversible.
        """
        if not getattr(self.deblur, "reversible", False):
            found = "K3DN without a deblur module" if self.deblur is None else type(self.deblur).__name__
            raise OptionError(f"{found} cannot run backwards: choose a reversible deblur module "
                              "(KernelSetDeblur, WienerDeblur) or set train.reblur to null")
        # Six input channels and one sharp image: it stands in for both views, which agree where all is sharp.
        views, crop = self.prepared({"lq": torch.cat([sharp, sharp], 1)})
        image = self.core(views, disparity, reverse=True, base=views[:, :3] if self.residual else None)
        return crop(self.network_output(image))

    def estimate_disparity(self, views: torch.Tensor) -> DisparityFeature:
        """Return the disparity feature of (B, 6, H, W) views in [-0.5, 0.5]."""
        if self.disparity is not None:
            return self.disparity(views[:, :3], views[:, 3:])
        grid = grid_of_image(views.shape[-2], views.shape[-1], self.window)
        return DisparityFeature(views.new_zeros(views.shape[0] * grid[0] * grid[1], self.vector_size), grid)

    def core(self, x: torch.Tensor, disparity: DisparityFeature, *, reverse: bool = False,
             base: torch.Tensor | None = None) -> torch.Tensor:
        """Run the network between disparity and image (`docs/networks/k3dn.md`, section 2.3).

        Args:
            x: (B, 6, H, W) in [-0.5, 0.5]: the views, or the sharp image twice for reblurring.
            disparity: of the blurred pair.
            reverse: reblur instead of deblur.
            base: (B, 3, H, W) to add to the output, or None.

        Returns:
            (B, 3, H, W), clipped to [-1, 1].
        """
        skips, features = [x], x
        for down, encoder in zip(self.down, self.encoder):
            features = encoder(down(features))
            skips.append(features)
        skips.pop()
        if self.deblur is not None:
            step = self.deblur.reverse if reverse else self.deblur
            features = step(features, disparity)
        for up, join, decoder in zip(self.up, self.preservation, self.decoder):
            features = decoder(join(skips.pop(), up(features)))
        image = self.out(features)
        return (image if base is None else image + base).clamp(-1, 1)

    def _deblur_pair(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, DisparityFeature]:
        views, crop = self.prepared(batch)
        disparity = self.estimate_disparity(views)
        base = None
        if self.residual:
            center = batch.get("center")
            base = mean_of_views(views) if center is None else pad_to(center - 0.5, views.shape[-2:])
        image = self.core(views, disparity, base=base)
        return crop(self.network_output(image)), disparity
