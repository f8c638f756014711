"""K3DN's sharp-region preservation: what was in focus passes through."""
import torch
from torch import nn

from k3dn_plugin.layers.local_similarity import local_similarity
from k3dn_plugin.layers.residual import ResidualBlocks
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class SharpRegionPreservation(nn.Module):
    """Join features from before and after deblurring, gated by their local similarity (K3DN, section on
    the sharp-region preservation module; `docs/networks/k3dn.md`, section 6).

    With x = cat(before, after) of C channels, the 81 similarities of each position with its neighbors
    become a gate per channel and position:

        out = x + conv_o(x * conv_v(similarity(conv_q(x), conv_k(x))))

    Args:
        before_channels: of the features (or image) from before deblurring.
        after_channels: of the features from after it.
        blocks: residual blocks inside conv_o.
        radius: the similarity looks at shifts up to this many pixels.
    """

    def __init__(self, *, before_channels: int, after_channels: int, blocks: int = 4, radius: int = 4):
        super().__init__()
        channels = self.out_channels = before_channels + after_channels
        self.radius = radius
        self.conv_q = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_k = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_v = nn.Conv2d((2 * radius + 1) ** 2, channels, 3, padding=1)
        self.conv_o = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1),
                                    ResidualBlocks(channels, blocks),
                                    nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """(B, C1, H, W) and (B, C2, H, W) -> (B, C1 + C2, H, W)."""
        x = torch.cat([before, after], 1)
        gated = x * self.gate(x)
        for layer in self.conv_o:   # one by one, so that what a layer has read is freed
            gated = layer(gated)
        return x + gated

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gate that the similarities open, of the shape of x."""
        return self.conv_v(local_similarity(self.conv_q(x), self.conv_k(x), self.radius))
