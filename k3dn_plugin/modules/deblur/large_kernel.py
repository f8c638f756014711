"""LaKDNet's large depthwise kernels in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.layers.large_kernel import LargeKernelBlock
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class LargeKernelDeblur(nn.Module):
    """Blocks of large depthwise convolutions (Ruan et al., LaKDNet; `docs/networks/lakdnet.md`, section 13), which
    see the disparity as an added map.

    The kernels are the same for all disparities; only the map steers them. With the defaults a block reaches 9
    positions far. It differs from `TransformerDeblur` in the mixer and in what stays on the trunk.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another.
        kernel_size: of the depthwise convolutions, odd.
        expansion: hidden width of the feed-forward part in channels.

    Raises:
        OptionError: the kernel is even.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 4, kernel_size: int = 9,
                 expansion: float = 2.3) -> None:
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = nn.Sequential(*(LargeKernelBlock(channels, kernel_size, expansion=expansion)
                                      for _ in range(blocks)))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        return self.blocks(features + self.from_disparity(features, disparity))
