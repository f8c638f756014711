"""The multi-input U-net of three scales that several restorers share (MIMO-UNet's form).

The image enters at full, half and quarter size; each scale below the first merges what comes from above with
the features of its own image. Blocks, merges and skips are the networks' own.
"""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

SCALES = 3

Layer = Callable[[torch.Tensor], torch.Tensor]
Merge = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Up(nn.ConvTranspose2d):
    """4x4 transposed convolution of stride 2 and an activation: doubles height and width.

    Args:
        activation: what follows, a function of a tensor.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = False, activation: Layer = F.relu) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', 2H, 2W)."""
        return self.activation(super().forward(x))


def every_second(x: torch.Tensor) -> torch.Tensor:
    """Return rows and columns 0, 2, 4, ...: nearest-neighbor halving."""
    return x[..., ::2, ::2]


def image_pyramid(image: torch.Tensor) -> list[torch.Tensor]:
    """Return the image at full, half and quarter size, by dropping pixels (aliased, as published)."""
    images = [image]
    for _ in range(SCALES - 1):
        images.append(every_second(images[-1]))
    return images


def encode_scales(images: Sequence[torch.Tensor], *, extract: nn.ModuleList, stages: nn.ModuleList,
                  inputs: Sequence[Layer], merges: Sequence[Merge]) -> list[torch.Tensor]:
    """Compute the features of three scales, each from the one above and from its own image.

    Args:
        images: (B, C, H / s, W / s) at s = 1, 2, 4.
        extract: first layers of the scales; those of the second and third halve the size.
        stages: the blocks of each scale.
        inputs: shallow features of the half-size and the quarter-size image.
        merges: how each of them joins the features from above, which come first.

    Returns:
        The features at full, half and quarter size.
    """
    features = [stages[0](extract[0](images[0]))]
    for scale in range(1, SCALES):
        above, own = extract[scale](features[-1]), inputs[scale - 1](images[scale])
        features.append(stages[scale](merges[scale - 1](above, own)))
    return features


def decode_scales(deepest: torch.Tensor, skips: Sequence[torch.Tensor], *, stages: nn.ModuleList,
                  up: nn.ModuleList, reduce: nn.ModuleList) -> list[torch.Tensor]:
    """Compute the decoded features of three scales, from the coarsest up.

    Args:
        deepest: the encoder's features at quarter size.
        skips: what joins the decoder at half and at full size.
        stages: the blocks at quarter, half and full size.
        up, reduce: to half and to full size; `reduce` takes the decoder's features before the skip's.

    Returns:
        The decoded features at full, half and quarter size.
    """
    decoded = [stages[0](deepest)]
    for step in range(SCALES - 1):
        joined = torch.cat([up[step](decoded[-1]), skips[step]], 1)
        decoded.append(stages[step + 1](reduce[step](joined)))
    return decoded[::-1]
