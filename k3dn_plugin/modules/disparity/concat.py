"""The plainest disparity module: convolutions over both views, stacked."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.modules.disparity.pooling import WindowPooling
from k3dn_plugin.registry import MODULES


def conv_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and ReLU; stride 2 halves the size, rounding up."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1), nn.ReLU())


@MODULES.register_module()
class ConcatDisparity(nn.Module):
    """Whatever convolutions find in the six channels: nothing tells them to compare the views.

    Args:
        vector_size: D, length of a window's vector.
        window: (rows, columns) of a window at 1/8 resolution, each 2 modulo 4.
        width: channels of the convolutions.
    """

    def __init__(self, *, vector_size: int = 256, window: tuple[int, int] = (18, 14), width: int = 64):
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_relu(6, width), conv_relu(width, width), conv_relu(width, width, 2),
            conv_relu(width, width, 2), conv_relu(width, width, 2))
        self.pooling = WindowPooling(channels=width, vector_size=vector_size, window=window)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> DisparityFeature:
        """(B, 3, H, W) views in the network's range -> one vector per window."""
        stacked = F.avg_pool2d(torch.cat([left, right], 1), 4)
        return self.pooling(self.convolutions(stacked), left.shape[-2:])
