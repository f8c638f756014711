"""A blur map from BaMBNet's network of circles of confusion."""
from collections.abc import Sequence

import torch
from torch import nn

from k3dn_plugin.layers.branch_network import STRIDE, CoCNetwork
from k3dn_plugin.layers.windows import pad_to
from k3dn_plugin.modules.blur_map.stretch import stretched
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class CoCBlurMap(nn.Module):
    """|radius| of the circle of confusion at each pixel, stretched over the image; trained along with the restorer.

    The network is that of BaMBNet (Liang et al., 2022), which reads blue, green, red and gives a signed radius for
    each color; the largest of the three counts, as in BaMBNet's own masks. Weights of a trained one fit under
    `network.`.

    Args:
        width: channels everywhere between.
        blocks: attention blocks in a residual group of each branch but the first.
        reduction: of the channel attention.
    """

    def __init__(self, *, width: int = 64, blocks: Sequence[int] = (1, 2, 3), reduction: int = 16) -> None:
        super().__init__()
        self.network = CoCNetwork(width=width, blocks=tuple(blocks), reduction=reduction)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) in [0, 1], any H and W -> (B, 1, H, W) in [0, 1]."""
        height, width = lq.shape[-2:]
        views = torch.cat([view.flip(1) for view in lq.chunk(2, 1)], 1)
        radius = self.network(pad_to(views, [-(-side // STRIDE) * STRIDE for side in (height, width)]))
        return stretched(radius[..., :height, :width].abs().amax(1, keepdim=True))
