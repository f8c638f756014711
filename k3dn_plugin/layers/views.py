"""The two views of a pair as networks hold them: left RGB, then right RGB, in six channels."""
import torch


def mean_of_views(lq: torch.Tensor) -> torch.Tensor:
    """Return the mean of left and right view, which stands for a combined view that was not captured.

    Args:
        lq: (..., 6, H, W), left RGB before right RGB.

    Returns:
        (..., 3, H, W).
    """
    return (lq[..., :3, :, :] + lq[..., 3:, :, :]) / 2
