"""From light to numbers in a file: gain, vignetting, noise, curve, rounding."""
from dataclasses import dataclass

import numpy as np
import torch

from k3dn_plugin.simulation.color import linear_to_srgb
from k3dn_plugin.simulation.field_window import FieldWindow


@dataclass(frozen=True)
class SensorSettings:
    """How the two views are read out.

    Attributes:
        gain: relative gain of the left and of the right view, about 1.
        ramp: brightness changes by this fraction from the middle to the edge of a view, left and right views
            the opposite way (measured on a Pixel 4: up to 0.17).
        shot: standard deviation of the photon noise of full scale; it grows with the root of the signal.
        read: standard deviation of the read noise, of full scale.
    """

    gain: tuple[float, float] = (1.0, 1.0)
    ramp: float = 0.0
    shot: float = 0.004
    read: float = 0.001


def expose(view: torch.Tensor, side: int, settings: SensorSettings, random: np.random.Generator, *,
           place: FieldWindow | None = None):
    """(3, H, W) linear light of one view (`side` 0 left, 1 right) with gain, vignetting and its own noise."""
    width = view.shape[-1]
    columns = (torch.linspace(-1, 1, width) if place is None else place.across(width).float()).to(view.device)
    light = view * settings.gain[side] * (1 + (settings.ramp if side else -settings.ramp) * columns)
    noise = torch.from_numpy(random.standard_normal(tuple(view.shape), dtype=np.float32)).to(view.device)
    return light + noise * (settings.shot ** 2 * light.clamp(min=0) + settings.read ** 2).sqrt()


def quantise(linear: torch.Tensor, bit_depth: int = 16) -> np.ndarray:
    """(3, H, W) linear light -> (H, W, 3) sRGB in uint16 or uint8."""
    top, dtype = (65535, np.uint16) if bit_depth == 16 else (255, np.uint8)
    return (linear_to_srgb(linear) * top).round().permute(1, 2, 0).cpu().numpy().astype(dtype)
