"""From a map at 1/32 resolution to one vector per window of the 1/8-resolution features."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.residual import SLOPE
from k3dn_plugin.layers.windows import FEATURE_STRIDE, grid_of_image
from k3dn_plugin.modules.disparity.feature import DisparityFeature


class WindowPooling(nn.Module):
    """Stretch, average-pool and project a matching map (`docs/networks/k3dn.md`, sections 3 and 4.2).

    A window of w cells at 1/8 resolution is w/4 cells at 1/32, for w = 2 modulo 4 a whole and a half.
    Half a cell cannot be pooled, so the map is stretched until two windows (w/2 cells) become w/2 + 1,
    that is two pools of (w + 2)/4; one more cell per two windows is one per 16 w pixels of the image.

    Args:
        channels: of the matching map.
        vector_size: length of a window's vector.
        window: (rows, columns) at 1/8 resolution, each 2 modulo 4.
    """

    def __init__(self, *, channels: int, vector_size: int, window: tuple[int, int]):
        super().__init__()
        wrong = [side for side in window if side < 2 or side % 4 != 2]
        if wrong:
            raise OptionError(f"window {tuple(window)}: each side must be 2 modulo 4 (6, 10, 14, 18, ...), "
                              f"so that the disparity map pools evenly; found {wrong[0]}")
        self.window = (window[0], window[1])
        self.pool = tuple((side + 2) // 4 for side in window)
        self.pixels_per_extra_cell = tuple(16 * side for side in window)
        self.project = nn.Linear(channels, vector_size)

    def forward(self, matched: torch.Tensor, image_size: tuple[int, int]) -> DisparityFeature:
        """(B, C, H/32, W/32) of an image of `image_size` = (H, W) -> one vector per window."""
        grid = grid_of_image(*image_size, self.window)
        stretched = [have + side // extra for have, side, extra
                     in zip(matched.shape[-2:], image_size, self.pixels_per_extra_cell)]
        pooled = F.avg_pool2d(F.interpolate(matched, size=stretched, mode="nearest"), self.pool)
        if pooled.shape[-2:] != grid:
            raise SizeError(f"an image of {tuple(image_size)} has {grid} windows but "
                            f"{tuple(pooled.shape[-2:])} disparity vectors; pad it to a multiple of "
                            f"{FEATURE_STRIDE * self.window[0]} x {FEATURE_STRIDE * self.window[1]}")
        vectors = self.project(pooled.permute(0, 2, 3, 1).flatten(0, 2))
        return DisparityFeature(F.leaky_relu(vectors, SLOPE), grid)
