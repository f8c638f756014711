"""Plain filters that the physics, the modules and the scores share."""
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


def transfer_function(kernels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Compute the one-sided spectra (..., H, W/2 + 1) of (..., k, k) kernels whose anchor is the middle tap.

    A product of spectra is a periodic convolution: content that must not wrap round needs a margin of k // 2.

    Args:
        kernels: odd k, at most H and W.
        size: (H, W) of the periodic image.
    """
    half = kernels.shape[-1] // 2
    padded = F.pad(kernels, (0, size[1] - kernels.shape[-1], 0, size[0] - kernels.shape[-2]))
    return torch.fft.rfft2(padded.roll((-half, -half), (-2, -1)))


def gaussian_blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur a (C, H, W) or (B, C, H, W) image with a Gaussian of three sigmas to either side, the border repeated."""
    if sigma == 0:
        return image
    batch = image if image.ndim == 4 else image[None]
    channels = batch.shape[1]
    half = min(math.ceil(3 * sigma), *(n - 1 for n in batch.shape[-2:]))
    line = torch.exp(-torch.arange(-half, half + 1).to(batch) ** 2 / (2 * sigma ** 2))
    line = (line / line.sum()).expand(channels, 1, 1, -1)
    batch = F.pad(batch, (half,) * 4, mode="replicate")
    batch = F.conv2d(F.conv2d(batch, line, groups=channels), line.transpose(-1, -2), groups=channels)
    return batch if image.ndim == 4 else batch[0]


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """Compute the sum (not the mean) of the absolute differences of neighbors, along both axes."""
    return images.diff(dim=-1).abs().sum() + images.diff(dim=-2).abs().sum()


def filter_channels(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Convolve every channel with its own kernel, zeros around: a depthwise `F.conv2d` of the same size.

    Images that hold no more cells than a kernel are multiplied by one matrix a channel: convolutions are made for
    large images, and their backward pass takes 5 to 10 times as long on windows of 6 x 6.

    Args:
        images: (N, C, H, W).
        kernels: (C, 1, k, k), odd k.
    """
    side, (number, channels, height, width) = kernels.shape[-1], images.shape
    if height * width > side * side:
        return F.conv2d(images, kernels, padding=side // 2, groups=channels)
    rows, columns = (torch.arange(n, device=images.device) for n in (height, width))
    down, right = (line[None, :] - line[:, None] + side // 2 for line in (rows, columns))  # tap of (output, input)
    reached = ((0 <= down) & (down < side))[:, None, :, None] & ((0 <= right) & (right < side))[None, :, None, :]
    taps = torch.where(reached, side * down[:, None, :, None] + right[None, :, None, :], side * side)
    cells = height * width
    matrices = F.pad(kernels.flatten(1), (0, 1)).index_select(1, taps.flatten()).view(channels, cells, cells)
    filtered = torch.bmm(images.flatten(2).transpose(0, 1), matrices.transpose(1, 2))
    return filtered.transpose(0, 1).reshape(number, channels, height, width)
