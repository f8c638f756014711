"""K3DN's disparity module: features of both views, a cost volume of four shifts, one vector per window.

Adapted in the paper from DDDNet's estimator. There is no explicit disparity anywhere: the module's
result, the "disparity feature", is a vector that the deblur module queries its kernels with.
"""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.cost_volume import shifted_cost_volume
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.modules.disparity.pooling import WindowPooling
from k3dn_plugin.registry import MODULES


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU, in two or three dimensions."""

    def __init__(self, in_channels: int, out_channels: int, *, dims: int = 2, stride: int = 1,
                 dilation: int = 1):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.conv = conv(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation,
                         bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)))


class PooledBranch(nn.Module):
    """Context of one scale: average pooling, 1x1 convolution, batch norm, ReLU, resized back.

    The 1x1 convolution pads by one pixel: published weights were trained with that border of constants,
    which the resizing bleeds into the edges of the image.
    """

    def __init__(self, in_channels: int, out_channels: int, *, pool: int):
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2d(in_channels, out_channels, 1, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.relu(self.norm(self.conv(F.avg_pool2d(x, self.pool))))
        return F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=True)


class ViewFeatures(nn.Module):
    """Features of one view at 1/8 resolution, (B, 3, H, W) -> (B, 32, H/8, W/8); both views share them."""

    def __init__(self, *, pools: tuple[int, int]):
        super().__init__()
        self.start = nn.Sequential(ConvNormRelu(3, 32), ConvNormRelu(32, 64))
        self.dilated = nn.Sequential(ConvNormRelu(64, 128, dilation=4),
                                     ConvNormRelu(128, 128, stride=2, dilation=8))
        self.branches = nn.ModuleList(PooledBranch(128, 32, pool=pool) for pool in pools)
        self.join = ConvNormRelu(192, 96)
        self.out = nn.Conv2d(96, 32, 1, bias=False)

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        x = self.dilated(self.start(F.avg_pool2d(view, 4)))
        return self.out(self.join(torch.cat([*(branch(x) for branch in self.branches), x], 1)))


@MODULES.register_module()
class CostVolumeDisparity(nn.Module):
    """The disparity feature of a dual-pixel pair (K3DN, disparity-aware deblur module).

    Args:
        vector_size: D, length of a window's vector.
        window: (rows, columns) of a window at 1/8 resolution; each must be 2 modulo 4.
        max_disparity: the cost volume holds `max_disparity` / 3 shifts of whole pixels at 1/8 resolution.
        both_signs: match shifts of either sign. The released network matches those of one alone, content that lies
            further left in the right view: what lies on the other side of the focus it restores worse. Ours.
        pools: sides of the two average pools of the view features at 1/8 resolution. The image must
            hold the larger one; smaller pools admit smaller training crops.

    Raises:
        OptionError: a window side is not 2 modulo 4, or `max_disparity` is not a multiple of 3.
    """

    def __init__(self, *, vector_size: int = 256, window: tuple[int, int] = (18, 14),
                 max_disparity: int = 12, both_signs: bool = False, pools: tuple[int, int] = (32, 16)):
        super().__init__()
        if max_disparity < 3 or max_disparity % 3:
            raise OptionError(f"CostVolumeDisparity.max_disparity: expected a multiple of 3, "
                              f"found {max_disparity}")
        self.shifts = max_disparity // 3
        self.both_signs = both_signs
        self.minimum = max(pools) * 8
        self.features = ViewFeatures(pools=pools)
        self.matching = nn.Sequential(
            ConvNormRelu(64, 32, dims=3), ConvNormRelu(32, 48, dims=3, stride=2),
            ConvNormRelu(48, 48, dims=3), ConvNormRelu(48, 64, dims=3, stride=2),
            ConvNormRelu(64, 64, dims=3))
        self.pooling = WindowPooling(channels=64, vector_size=vector_size, window=window)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> DisparityFeature:
        """(B, 3, H, W) views in the network's range -> one vector per window.

        Raises:
            SizeError: the image is too small, or cannot be cut evenly into windows.
        """
        if min(left.shape[-2:]) < self.minimum:
            raise SizeError(f"CostVolumeDisparity needs at least {self.minimum} x {self.minimum} pixels, "
                            f"found {tuple(left.shape[-2:])}")
        volume = shifted_cost_volume(self.features(left), self.features(right), self.shifts,
                                     both_signs=self.both_signs)
        # Two strides bring the published four shifts down to one; more are averaged.
        return self.pooling(self.matching(volume).mean(2), left.shape[-2:])
