"""DMENet: deep defocus map estimation (Lee, Lee, Cho, Lee, CVPR 2019), with the deconvolution that makes a
restored image of its map.

A VGG-19 encoder and a decoder give one defocus map, full size; the image is then deconvolved with a
Gaussian of the width that the map says (`modules/kernels/hyper_laplacian.py`). A single-image method: it
takes the center view. The published evaluation crops to a multiple of 16, rounds image and map to 8 bits,
and takes the levels of blur from the whole image; here other sizes are padded by reflection.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.hyper_laplacian import NonBlindDeconvolution, quantize
from k3dn_plugin.layers.residual import at_least_float32
from k3dn_plugin.registry import ARCHS

SLOPE = 0.2
CONVS_PER_STAGE = (2, 2, 4, 4, 4)
STRIDE = 2 ** (len(CONVS_PER_STAGE) - 1)
MEAN_BGR = (103.939, 116.779, 123.68)
LARGEST_BLUR = 15.0


class OffsetNorm(nn.Module):
    """Batch norm with an offset but no scale; its running variance is the biased one, as in TensorFlow."""

    momentum = 0.1
    eps = 1e-5
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training:
            variance, mean = self.moments(x)
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        scale = torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return biased variance and mean of each channel; over all processes where training shares them."""
        return torch.var_mean(at_least_float32(x), (0, 2, 3), correction=0)


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution; edges are repeated (TensorFlow's symmetric padding by one pixel)."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")


class ConvNorm(nn.Module):
    """Convolution, norm and, unless `plain`, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, plain: bool = False):
        super().__init__()
        self.conv = (conv3(in_channels, out_channels) if kernel_size == 3
                     else nn.Conv2d(in_channels, out_channels, kernel_size))
        self.norm = OffsetNorm(out_channels)
        self.plain = plain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return x if self.plain else F.leaky_relu(x, SLOPE)


class RefineBlock(nn.Module):
    """Two convolutions of x + a 1x1 convolution of x, each activated, the sum not."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(ConvNorm(channels, channels), ConvNorm(channels, channels))
        self.skip = ConvNorm(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.skip(x)


def head(channels: int) -> nn.Sequential:
    """Return a map from features: the single channel is normalized before the sigmoid."""
    return nn.Sequential(ConvNorm(channels, channels // 2), ConvNorm(channels // 2, 1, plain=True),
                         nn.Sigmoid())


class DefocusNetwork(nn.Module):
    """RGB image -> defocus map d in (0, 1): blur diameter 15 d pixels, Gaussian sigma (15 d - 1) / 2.

    Args:
        width: channels of the first stage, 64 as in VGG-19.
        refine_blocks: residual blocks at full size.
    """

    def __init__(self, *, width: int = 64, refine_blocks: int = 7):
        super().__init__()
        if width < 2 or width % 2 or refine_blocks < 0:
            raise OptionError("DMENet: expected an even width and refine_blocks of 0 or more; found "
                              f"{width} and {refine_blocks}")
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.encoder = nn.ModuleList()
        before = 3
        for after, count in zip(widths, CONVS_PER_STAGE):
            layers = []
            for i in range(count):
                layers += [conv3(before if i == 0 else after, after), nn.ReLU()]
            self.encoder.append(nn.Sequential(*layers))
            before = after
        ups = (4 * width, 2 * width, width)
        self.up = nn.ModuleList()
        for after, skip in zip(ups, (8 * width, 4 * width, 2 * width)):
            self.up.append(nn.Sequential(ConvNorm(before + skip, after), ConvNorm(after, after),
                                         ConvNorm(after, after)))
            before = after
        self.entry = ConvNorm(2 * width, width)
        self.refine = nn.Sequential(*(RefineBlock(width) for _ in range(refine_blocks)))
        self.final = nn.Sequential(ConvNorm(width, width), ConvNorm(width, width // 2),
                                   conv3(width // 2, 1), nn.Sigmoid())
        self.heads = nn.ModuleList(head(channels) for channels in (8 * width, *ups, width))
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.tensor(MEAN_BGR, dtype=torch.float64).view(3, 1, 1),
                             persistent=False)
        self._initialize()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), RGB in [0, 1], sizes multiples of 16 -> (B, 1, H, W)."""
        return self.final(self.refine(self.features(image)[-1]))

    def with_auxiliary(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the map, and those of the auxiliary heads, used in training, at 1/16, 1/8, 1/4, 1/2 and 1."""
        features = self.features(image)
        auxiliary = [head(x) for head, x in zip(self.heads, features)]
        return self.final(self.refine(features[-1])), auxiliary

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return features at 1/16, 1/8, 1/4, 1/2 and 1, the coarsest from the encoder."""
        x = 255 * image.flip(1) - self.mean.to(image.dtype)
        skips = []
        for stage in self.encoder:
            x = stage(x if not skips else F.max_pool2d(skips[-1], 2))
            skips.append(x)
        found = [skips.pop()]
        for block in (*self.up, self.entry):
            up = F.interpolate(found[-1], scale_factor=2, mode="nearest")
            found.append(block(torch.cat([up, skips.pop()], 1)))
        return found

    def _initialize(self) -> None:
        """He weights, Xavier before a sigmoid, no bias. The published encoder starts from VGG-19."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                if layer.out_channels == 1:
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


@ARCHS.register_module()
class DMENet(Restorer):
    """Defocus map and deconvolution. The defaults are the published ones.

    Args:
        width, refine_blocks: of the network.
        eight_bit_map: round the map to 8 bits before it is used, as published.
        levels: quantiles of blur, each deconvolved for itself.
        fidelity: weight of the data against the prior (published: 16.8 for DPDD, 4.2 for RealDOF, 420 for
            CUHK).
        alpha: exponent of the prior.
        kernel_support: odd side of the largest kernel.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="DMENet", bfloat16_db=99.0,
        no_torch_export="how long it deconvolves depends on the values of its map",
        no_onnx="how long it deconvolves depends on the values of its map",
        paper="Lee, Lee, Cho, Lee: Deep Defocus Map Estimation Using Domain Adaptation",
        year=2019, venue="CVPR", official_license="GNU AGPL v3, exemptions by license",
        views=("center",), size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        # The levels of blur are quantiles over the whole image.
        tiling="approximate", receptive_margin=160, recipe_source="official code", view_order_matters=False,
        notes="Published scores round the image to 8 bits before the deconvolution. It does not compile to one graph, "
              "since the deconvolution chooses its polynomials by values. Training needs maps of "
              "the true blur: the published losses compare `defocus` with them. That `restored` passes a "
              "gradient on to the map is ours. The deconvolution takes minutes for a frame of DPDD on a CPU.")

    tiny_arguments: ClassVar[dict] = {"width": 8, "refine_blocks": 1, "levels": 3, "kernel_support": 21}

    def __init__(self, *, width: int = 64, refine_blocks: int = 7, eight_bit_map: bool = True,
                 levels: int = 32, fidelity: float = 16.8, alpha: float = 1.5, kernel_support: int = 101):
        super().__init__()
        if levels < 1:
            raise OptionError(f"DMENet.levels: expected at least 1, found {levels}")
        self.network = DefocusNetwork(width=width, refine_blocks=refine_blocks)
        self.deconvolution = NonBlindDeconvolution(fidelity=fidelity, alpha=alpha, support=kernel_support)
        self.eight_bit_map = eight_bit_map
        self.levels = levels

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) at a legal size -> (B, 3, H, W) in [0, 1]."""
        return self.deblur(views, self.network(views))

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`; `defocus` (B, 1, H, W), blur diameter over 15 pixels; `defocus_scales`, the auxiliary
        maps at 1/16, 1/8, 1/4, 1/2 and 1 of the (padded) size.
        """
        views, crop = self.prepared(batch)
        defocus, auxiliary = self.network.with_auxiliary(views)
        return {"restored": crop(self.deblur(views, defocus)), "defocus": crop(defocus), "defocus_scales": auxiliary}

    def deblur(self, views: torch.Tensor, defocus: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) deconvolved by (B, 1, H, W) maps -> (B, 3, H, W) in [0, 1].

        The choice of a level has no gradient; in its place stands the difference between neighbouring
        levels, so that a loss on the image can train the map.
        """
        if views.is_meta:
            return views  # no values, hence no levels; and no convolutions to count
        sigma = (LARGEST_BLUR * at_least_float32(defocus[:, 0]) - 1).clamp(min=0) / 2
        restored = []
        for image, width in zip(views, sigma):
            with torch.no_grad():
                rounded = width
                if self.eight_bit_map:
                    # The published map, floor(255 d + 0.5) / 255, in terms of sigma.
                    d = torch.floor(255 * (2 * width + 1) / LARGEST_BLUR + 0.5) / 255
                    rounded = ((LARGEST_BLUR * d - 1) / 2).clamp(min=0)
                sharp, slope = self.deconvolution.with_slope(image, quantize(rounded, self.levels))
            restored.append(sharp + slope * (width - width.detach()))
        return torch.stack(restored)
