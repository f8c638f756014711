"""Plain joins of features from before and after deblurring: the rivals of sharp-region preservation."""
import torch
from torch import nn

from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class ConcatSkip(nn.Module):
    """Concatenation, before first: the join of K3DN's first training stage.

    Args:
        before_channels, after_channels: of the two inputs.
    """

    def __init__(self, *, before_channels: int, after_channels: int):
        super().__init__()
        self.out_channels = before_channels + after_channels

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """(B, C1, H, W) and (B, C2, H, W) -> (B, C1 + C2, H, W)."""
        return torch.cat([before, after], 1)


@MODULES.register_module()
class AddSkip(nn.Module):
    """Addition, after a 1x1 convolution that gives `before` the channels of `after`.

    Args:
        before_channels, after_channels: of the two inputs.
    """

    def __init__(self, *, before_channels: int, after_channels: int):
        super().__init__()
        self.out_channels = after_channels
        self.project = nn.Conv2d(before_channels, after_channels, 1)

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """(B, C1, H, W) and (B, C2, H, W) -> (B, C2, H, W)."""
        return after + self.project(before)


@MODULES.register_module()
class GatedSkip(nn.Module):
    """A gate per channel and position that mixes before and after.

    out = g * project(before) + (1 - g) * after, g = sigmoid(conv(cat(before, after))), which starts
    nearly closed, so that a new gate changes little.

    Args:
        before_channels, after_channels: of the two inputs.
    """

    def __init__(self, *, before_channels: int, after_channels: int):
        super().__init__()
        self.out_channels = after_channels
        self.project = nn.Conv2d(before_channels, after_channels, 1)
        self.gate = nn.Conv2d(before_channels + after_channels, after_channels, 3, padding=1)
        nn.init.zeros_(self.gate.weight)
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """(B, C1, H, W) and (B, C2, H, W) -> (B, C2, H, W)."""
        gate = torch.sigmoid(self.gate(torch.cat([before, after], 1)))
        return gate * self.project(before) + (1 - gate) * after
