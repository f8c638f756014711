"""How a deblur module without windows of its own listens to the disparity of each window."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.modules.disparity.feature import DisparityFeature, check_images


class Conditioning(nn.Linear):
    """A map of C channels from the disparity vectors, constant over each window, to be added to features.

    Args:
        vector_size: D, length of a window's disparity vector.
        channels: C.
    """

    def __init__(self, vector_size: int, channels: int):
        super().__init__(vector_size, channels)

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Features (B, C', H, W), for their size, and the disparity -> (B, C, H, W).

        Raises:
            SizeError: the two belong to different numbers of images.
        """
        check_images(features, disparity)
        windows = DisparityFeature(super().forward(disparity.vectors), disparity.grid).as_map()
        return F.interpolate(windows, size=features.shape[-2:], mode="nearest")
