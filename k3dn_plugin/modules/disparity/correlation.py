"""Disparity from local correlation: how well each position matches its row neighbors in the other view."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.modules.disparity.concat import conv_relu
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.modules.disparity.pooling import WindowPooling
from k3dn_plugin.registry import MODULES


def row_correlation(left: torch.Tensor, right: torch.Tensor, radius: int) -> torch.Tensor:
    """Cosine similarity of left features with right features shifted along the row.

    Args:
        left, right: (B, C, H, W).
        radius: largest shift, in both directions (dual-pixel disparity has both signs).

    Returns:
        (B, 2 radius + 1, H, W) in [-1, 1], shifts -radius to radius; 0 where the shifted view has no pixel.
    """
    left, right = F.normalize(left, dim=1), F.normalize(right, dim=1)
    width = left.shape[-1]
    padded = F.pad(right, (radius, radius))
    return torch.stack([(left * padded[..., shift:shift + width]).sum(1)
                        for shift in range(2 * radius + 1)], 1)


@MODULES.register_module()
class CorrelationDisparity(nn.Module):
    """Disparity feature from the correlation of both views' features at 1/4 resolution.

    Args:
        vector_size: D, length of a window's vector.
        window: (rows, columns) of a window at 1/8 resolution, each 2 modulo 4.
        width: channels of the convolutions.
        radius: largest shift tested, in pixels at 1/4 resolution, either way.
    """

    def __init__(self, *, vector_size: int = 256, window: tuple[int, int] = (18, 14), width: int = 64,
                 radius: int = 4):
        super().__init__()
        self.radius = radius
        self.features = nn.Sequential(conv_relu(3, width // 2), conv_relu(width // 2, width),
                                      nn.Conv2d(width, width, 3, padding=1))
        self.matching = nn.Sequential(
            conv_relu(2 * radius + 1 + width, width), conv_relu(width, width, 2),
            conv_relu(width, width, 2), conv_relu(width, width, 2))
        self.pooling = WindowPooling(channels=width, vector_size=vector_size, window=window)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> DisparityFeature:
        """(B, 3, H, W) views in the network's range -> one vector per window."""
        first, second = (self.features(F.avg_pool2d(view, 4)) for view in (left, right))
        matched = torch.cat([row_correlation(first, second, self.radius), first], 1)
        return self.pooling(self.matching(matched), left.shape[-2:])
