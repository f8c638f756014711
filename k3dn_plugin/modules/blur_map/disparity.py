"""A blur map from the size of the disparity, which grows with the blur in a dual-pixel pair."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.windows import FEATURE_STRIDE, pad_to
from k3dn_plugin.modules.blur_map.stretch import stretched
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES

MIDDLE = 0.5  # disparity modules see views about zero, as K3DN gives them


@MODULES.register_module()
class DisparityBlurMap(nn.Module):
    """|d| of any disparity module, stretched over the image; trained along with the restorer.

    The module's vector of each window becomes one signed number d by a linear layer, so that the sign of the defocus,
    on which the blur's size does not depend, is left out by the magnitude and not by the network
    (`docs/networks/ldp.md`, section 7).

    Args:
        disparity: the disparity module, a mapping with `type`.
        vector_size: length of its vectors.
        window: (rows, columns) of a window at 1/8 resolution, each 2 modulo 4; all pixels of a window have one value.
            An image of one window has a map of zeros.
    """

    def __init__(self, *, disparity: dict[str, Any] = {"type": "CostVolumeDisparity"},  # noqa: B006
                 vector_size: int = 64, window: tuple[int, int] = (6, 6)) -> None:
        super().__init__()
        self.window = tuple(window)
        self.disparity = MODULES.build(disparity, vector_size=vector_size, window=self.window)
        self.head = nn.Linear(vector_size, 1)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) in [0, 1], any H and W -> (B, 1, H, W) in [0, 1]."""
        height, width = lq.shape[-2:]
        smallest = getattr(self.disparity, "minimum", 1)
        steps = (FEATURE_STRIDE * side for side in self.window)
        padded = pad_to(lq, [-(-max(side, smallest) // step) * step for side, step in zip((height, width), steps)])
        left, right = (padded - MIDDLE).chunk(2, 1)
        feature = self.disparity(left, right)
        size = DisparityFeature(self.head(feature.vectors), feature.grid).as_map().abs()
        return stretched(F.interpolate(size, size=padded.shape[-2:], mode="nearest")[..., :height, :width])
