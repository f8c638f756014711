"""Iterative adaptive convolution: small separable filters, one a pixel and channel, applied in sequence.

IFAN (Lee et al., CVPR 2021), section 3.2: a large blur is undone by N passes of small filters that a
network predicts for every position.
"""
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.dynamic_filter import added_up
from k3dn_plugin.layers.macs import record_macs


def filter_channels(iterations: int, channels: int, kernel_size: int) -> int:
    """Return how many values a position needs: two kernels and a bias for each channel and iteration."""
    return iterations * channels * (2 * kernel_size + 1)


def split_filters(filters: torch.Tensor, iterations: int, channels: int,
                  kernel_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The (kernels, bias) of each iteration from a prediction that holds all taps first, then all biases.

    Args:
        filters: (B, N (2ck + c), h, w).

    Yields:
        kernels (B, 2ck, h, w), the first kernel's taps of each channel, then the second's; bias (B, c, h, w).
    """
    taps = 2 * channels * kernel_size
    for n in range(iterations):
        start = iterations * taps + n * channels
        yield filters[:, n * taps:(n + 1) * taps], filters[:, start:start + channels]


def adaptive_convolution(features: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor, *,
                         both_kernels: bool = False) -> torch.Tensor:
    """One iteration: filter along the columns, then along the rows, then add the bias.

    Each pass uses the taps stored at the pixel that it writes; edges are replicated, taps not normalized.

    Args:
        features: (B, c, h, w).
        kernels: (B, 2ck, h, w), k odd.
        bias: (B, c, h, w).
        both_kernels: use the second kernel for the rows. The released networks use the first one twice (a
            mistake, as the authors say) and were trained so; they advise both for training anew.

    Returns:
        (B, c, h, w).
    """
    batch, channels, height, width = features.shape
    first, second = kernels.view(batch, 2, channels, -1, height, width).unbind(1)
    radius = first.shape[2] // 2
    record_macs(2 * features.numel() * first.shape[2])
    padded = F.pad(features, (0, 0, radius, radius), mode="replicate")
    out = added_up(first[:, :, i] * padded[:, :, i:i + height] for i in range(first.shape[2]))
    padded = F.pad(out, (radius, radius, 0, 0), mode="replicate")
    along_rows = second if both_kernels else first
    out = added_up(along_rows[:, :, i] * padded[..., i:i + width] for i in range(first.shape[2]))
    return out + bias


def iterative_adaptive_convolution(features: torch.Tensor,
                                   steps: Iterable[tuple[torch.Tensor, torch.Tensor]], *,
                                   slope: float, activate_last: bool,
                                   both_kernels: bool = False) -> torch.Tensor:
    """Return all iterations, with a leaky ReLU between them.

    Args:
        features: (B, c, h, w).
        steps: (kernels, bias) of each iteration, as `split_filters` gives them; a generator may make them
            one by one, so that they are never all in memory.
        slope: of the leaky ReLU.
        activate_last: whether the leaky ReLU also follows the last iteration.
    """
    last = None
    for kernels, bias in steps:
        if last is not None:
            features = F.leaky_relu(last, slope)
        last = adaptive_convolution(features, kernels, bias, both_kernels=both_kernels)
    if last is None:
        raise OptionError("iterative adaptive convolution: expected at least one (kernels, bias) step, found none")
    return F.leaky_relu(last, slope) if activate_last else last
