"""DeepRFT's residual Fourier blocks in the place of the deblur module."""
import torch
from torch import nn

from k3dn_plugin.layers.fourier_residual import FourierBlock
from k3dn_plugin.modules.deblur.conditioning import Conditioning
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class FourierResidualDeblur(nn.Module):
    """Residual blocks with a branch on the spectrum of the whole map (Mao et al., DeepRFT, section 3.2), which
    see the disparity as an added map.

    Unlike `KernelSetDeblur`, whose spectra multiply those of each window, these convolve the spectrum of all of
    it, the same for every disparity but for what the map adds.

    Args:
        channels: C, feature channels.
        vector_size: D, length of a window's disparity vector.
        blocks: how many follow one another.
    """

    reversible = False

    def __init__(self, *, channels: int, vector_size: int, blocks: int = 4):
        super().__init__()
        self.from_disparity = Conditioning(vector_size, channels)
        self.blocks = nn.Sequential(*(FourierBlock(channels) for _ in range(blocks)))

    def forward(self, features: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """(B, C, H, W) features and their disparity -> (B, C, H, W)."""
        return self.blocks(features + self.from_disparity(features, disparity))
