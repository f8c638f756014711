"""Filtering a batch whose images have kernels of their own."""
import torch
import torch.nn.functional as F


def filter_images(padded: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Correlate the channels of each image with that image's kernels; consecutive channels share one.

    One grouped convolution over the whole batch, so that no shifted copies are held.

    Args:
        padded: (N, C, h + k - 1, w + k - 1), images with what the kernels see around them.
        kernels: (N, groups, k, k), groups a divisor of C.

    Returns:
        (N, C, h, w).

    Example:
        >>> images, kernels = torch.rand(2, 4, 5, 6), torch.zeros(2, 1, 3, 3)
        >>> kernels[1, 0, 0, 1] = 1  # the second image moves down by a row, the first is gone
        >>> torch.equal(filter_images(images, kernels)[1], images[1, :, :3, 1:-1])
        True
    """
    images, channels = padded.shape[:2]
    weight = kernels.repeat_interleave(channels // kernels.shape[1], 1).flatten(0, 1)[:, None]
    out = F.conv2d(padded.reshape(1, images * channels, *padded.shape[2:]), weight, groups=images * channels)
    return out.view(images, channels, *out.shape[2:])
