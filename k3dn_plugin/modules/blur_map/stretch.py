"""The scale that all blur maps share."""
import torch


def stretched(blur: torch.Tensor) -> torch.Tensor:
    """Return (m - min) / (max - min) for each image, 0 where all values are equal.

    Args:
        blur: (..., H, W), in any unit in which more is more blur.

    Returns:
        The same shape, in [0, 1].
    """
    low, high = blur.amin((-2, -1), keepdim=True), blur.amax((-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > 0, (blur - low) / torch.where(span > 0, span, 1), 0)
