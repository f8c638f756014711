"""The cost volume of stereo networks: features of both views side by side, one plane for each shift."""
import torch
import torch.nn.functional as F


def shifted_cost_volume(left: torch.Tensor, right: torch.Tensor, shifts: int, *,
                        both_signs: bool = False) -> torch.Tensor:
    """Concatenate left features with right features shifted by 0, 1, ... columns.

    Args:
        left, right: (B, C, H, W).
        shifts: S, how many shifts of one sign, 0 among them.
        both_signs: shift the other way too, from -(S - 1) on.

    Returns:
        (B, 2C, S or 2S - 1, H, W); zero where the shifted view has no pixel. (The released code leaves those
        columns undefined; the method needs zero.)
    """
    batch, channels, height, width = left.shape
    planes = []
    for shift in range(1 - shifts if both_signs else 0, shifts):
        before, after = max(shift, 0), max(-shift, 0)
        if before + after >= width:
            planes.append(left.new_zeros(batch, 2 * channels, height, width))
            continue
        # What the two have in common, and zeros. Written into a tensor of zeros, the planes would compile into a kernel
        # of a megabyte, which takes g++ most of a minute.
        seen = torch.cat([left[..., before:width - after], right[..., after:width - before]], 1)
        planes.append(F.pad(seen, (before, after)))
    return torch.stack(planes, 2)
