"""Radial distortion, as ImageMagick's "barrel" does it and RDPD uses it."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from k3dn_plugin.simulation.field_window import FieldWindow


def distort(image: torch.Tensor, coefficients: Sequence[float], *, window: FieldWindow | None = None, margin: int = 0,
            nearest: bool = False, repeat: bool = False) -> torch.Tensor:
    """Distort a (C, H, W) image: source = center + (destination - center) (A R^3 + B R^2 + C R + D).

    R is the distance from the frame's middle over half of its shorter side.

    Args:
        image: of any range.
        coefficients: (A, B, C, D).
        window: of the picture in the frame; the picture is the frame if None. A crop stays where it is: the
            shift of its own middle is left out.
        margin: pixels to cut off every side afterwards, so that nothing has to come from outside.
        nearest: take the nearest pixel, for maps that must not be mixed; bicubic otherwise.
        repeat: what comes from outside the picture is its nearest pixel; else it is black, as published.
    """
    height, width = image.shape[-2:]
    x, y = _sources(height, width, coefficients, window)
    places = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    places = places[margin:height - margin, margin:width - margin]
    moved = F.grid_sample(image[None], places[None].to(image), mode="nearest" if nearest else "bicubic",
                          align_corners=False, padding_mode="border" if repeat else "zeros")[0]
    if nearest:
        return moved
    # Bicubic sampling overshoots.
    lowest = image.amin() if repeat else image.amin().clamp(max=0)
    return torch.minimum(torch.maximum(moved, lowest), image.amax())


def margin_needed(size: tuple[int, int], coefficients: Sequence[float], window: FieldWindow) -> int:
    """Compute the pixels on every side of a crop of `size` that its distortion reaches out to."""
    x, y = _sources(size[0], size[1], coefficients, window)
    outside = max(float(-x.min()), float(x.max()) - size[1] + 1, float(-y.min()), float(y.max()) - size[0] + 1)
    # Bicubic sampling looks two pixels further; a larger crop is distorted more at its rim.
    return max(0, int(1.25 * outside)) + 3


def _sources(height: int, width: int, coefficients: Sequence[float],
             window: FieldWindow | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and rows, (H, W), that each pixel comes from."""
    a, b, c, d = coefficients
    frame = (height, width) if window is None else window.frame
    origin = (0, 0) if window is None else window.origin
    unit = min(frame) / 2

    def moved(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distance = (x ** 2 + y ** 2).sqrt() / unit
        factor = a * distance ** 3 + b * distance ** 2 + c * distance + d
        return x * factor, y * factor
    y, x = torch.meshgrid(torch.arange(height, dtype=torch.float64) + origin[0] - (frame[0] - 1) / 2,
                          torch.arange(width, dtype=torch.float64) + origin[1] - (frame[1] - 1) / 2,
                          indexing="ij")
    new_x, new_y = moved(x, y)
    back_x = back_y = 0.0
    if window is not None and (frame != (height, width)):
        middle_x, middle_y = x.mean(), y.mean()
        moved_x, moved_y = moved(middle_x, middle_y)
        back_x, back_y = middle_x - moved_x, middle_y - moved_y
    return (new_x + back_x - origin[1] + (frame[1] - 1) / 2, new_y + back_y - origin[0] + (frame[0] - 1) / 2)
