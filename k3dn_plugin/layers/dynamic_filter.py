"""Dynamic filtering: every position has a k x k kernel of its own, which a network predicts (DRBNet)."""
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from k3dn_plugin.layers.macs import record_macs


def added_up(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the sum of at least one tensor, one term in memory at a time."""
    rest = iter(terms)
    total = next(rest)
    for term in rest:
        total = total + term
    return total


def dynamic_filter(image: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Correlate each position with its own kernel, the same one in all channels; edges are replicated.

    out[c, y, x] = sum_ij kernels[k i + j, y, x] image[c, y + i - k // 2, x + j - k // 2]. Nothing is
    normalised: the taps count as they are. Shifted copies are added up one by one, so memory for one of
    them is enough; stacked as patches they would take k x k images.

    Args:
        image: (B, C, H, W).
        kernels: (B, k x k, H, W), k odd, taps by row and column.

    Returns:
        (B, C, H, W).

    Example:
        >>> image, kernels = torch.rand(1, 3, 4, 4), torch.zeros(1, 9, 4, 4)
        >>> kernels[:, 4] = 1  # the centre tap
        >>> torch.equal(dynamic_filter(image, kernels), image)
        True
    """
    height, width = image.shape[-2:]
    record_macs(image.numel() * kernels.shape[1])
    side = round(kernels.shape[1] ** 0.5)
    padded = F.pad(image, (side // 2,) * 4, mode="replicate")
    # Unbound at once, not sliced: the gradient of every slice would be as large as all kernels.
    taps = kernels.unbind(1)
    return added_up(tap[:, None] * padded[..., n // side:n // side + height, n % side:n % side + width]
                    for n, tap in enumerate(taps))
