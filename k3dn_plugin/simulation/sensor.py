"""From light to numbers in a file: exposure, gain, vignetting, noise, curve, sharpening, JPEG, rounding."""
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from k3dn_plugin.layers.filters import gaussian_blur
from k3dn_plugin.simulation.color import linear_to_srgb
from k3dn_plugin.simulation.field_window import FieldWindow

UNSHARP_SIGMA = 1.0  # pixels, of the camera's unsharp mask


@dataclass(frozen=True)
class SensorSettings:
    """How the two views are read out, and how the camera develops them.

    Attributes:
        gain: relative gain of the left and of the right view, about 1.
        ramp: brightness changes by this fraction from the middle to the edge of a view, left and right views
            the opposite way (measured on a Pixel 4: up to 0.17).
        shot: standard deviation of the photon noise of full scale; it grows with the root of the signal.
        read: standard deviation of the read noise, of full scale.
        exposure: factor on all light, of the truth too; below 1 it is a dark exposure.
        one_channel: only the green channel was taken; files repeat it.
        sharpening: amount of the camera's unsharp mask, on encoded values, of the truth too.
        jpeg_quality: of the file that each view went through (8 bits), or None.
    """

    gain: tuple[float, float] = (1.0, 1.0)
    ramp: float = 0.0
    shot: float = 0.004
    read: float = 0.001
    exposure: float = 1.0
    one_channel: bool = False
    sharpening: float = 0.0
    jpeg_quality: int | None = None


def collected(light: torch.Tensor, settings: SensorSettings) -> torch.Tensor:
    """Compute the light (3, H, W) that the sensor collects of a scene's: its channels, times the exposure."""
    light = light[1:2].expand_as(light) if settings.one_channel else light
    return light * settings.exposure if settings.exposure != 1 else light


def expose(view: torch.Tensor, side: int, settings: SensorSettings, random: np.random.Generator, *,
           window: FieldWindow | None = None) -> torch.Tensor:
    """Apply gain, vignetting and its own noise to (3, H, W) linear light of one view (`side` 0 left, 1 right)."""
    width = view.shape[-1]
    columns = (torch.linspace(-1, 1, width) if window is None else window.across(width).float()).to(view.device)
    light = view * settings.gain[side] * (1 + (settings.ramp if side else -settings.ramp) * columns)
    if not (settings.shot or settings.read):
        return light
    # The random numbers come from the CPU: the same on every device. One channel has one noise.
    shape = (1 if settings.one_channel else 3, *view.shape[1:])
    noise = torch.from_numpy(random.standard_normal(shape, dtype=np.float32)).to(view.device)
    return light + noise * (settings.shot ** 2 * light.clamp(min=0) + settings.read ** 2).sqrt()


def develop(linear: torch.Tensor, settings: SensorSettings, bit_depth: int = 16, *,
            compressed: bool = True) -> np.ndarray:
    """Turn (3, H, W) linear light into the (H, W, 3) sRGB numbers of a file, uint16 or uint8.

    Args:
        linear: what `expose` gives, or the truth.
        settings: how the camera develops.
        bit_depth: 16 or 8.
        compressed: whether it goes through the JPEG of the settings; the truth does not.
    """
    encoded = linear_to_srgb(linear)
    if settings.sharpening:
        detail = encoded - gaussian_blur(encoded, UNSHARP_SIGMA)
        encoded = (encoded + settings.sharpening * detail).clamp(0, 1)
    if settings.jpeg_quality is None or not compressed:
        return rounded(encoded, bit_depth)
    eight = np.ascontiguousarray(rounded(encoded, 8)[..., ::-1])
    _, file = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality])
    eight = np.ascontiguousarray(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[..., ::-1])
    return eight if bit_depth == 8 else eight.astype(np.uint16) * np.uint16(257)


def quantize(linear: torch.Tensor, bit_depth: int = 16) -> np.ndarray:
    """Turn (3, H, W) linear light into (H, W, 3) sRGB numbers, uint16 or uint8."""
    return rounded(linear_to_srgb(linear), bit_depth)


def rounded(encoded: torch.Tensor, bit_depth: int) -> np.ndarray:
    """Round (3, H, W) encoded values in [0, 1] to (H, W, 3) uint16 or uint8."""
    top, dtype = (65535, np.uint16) if bit_depth == 16 else (255, np.uint8)
    return (encoded * top).round().permute(1, 2, 0).cpu().numpy().astype(dtype)
