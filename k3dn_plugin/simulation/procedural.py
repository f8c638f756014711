"""Drawn pictures that join the photographs: what is rare in them, at any contrast and direction.

| kind         | what                                                            |
|--------------|-----------------------------------------------------------------|
| dead leaves  | discs that hide one another, of many sizes (Matheron's model)    |
| polygons     | overlapping polygons and lines of one color each                |
| text         | lines of letters                                                |
| gratings     | stripes and checks, sinusoidal and hard, from 2.5 pixels a period |

All are (3, H, W) in linear light, anti-aliased.
"""
from collections.abc import Callable

import cv2
import numpy as np
import torch

from k3dn_plugin.data.images import to_float
from k3dn_plugin.simulation.color import srgb_to_linear

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?&%$#@+-=()"
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX,
         cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
SHIFT = 3  # OpenCV's fractional bits: positions in eighths of a pixel


def procedural_picture(size: tuple[int, int], random: np.random.Generator) -> torch.Tensor:
    """Draw a picture of `size` (rows, columns) of one of the kinds: (3, H, W) linear light."""
    kind = KINDS[int(random.integers(len(KINDS)))]
    encoded = torch.from_numpy(to_float(kind(size, random))).permute(2, 0, 1).contiguous()
    return srgb_to_linear(encoded)


def dead_leaves(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Draw discs over one another, radii r from 1.5 pixels to a third of the picture with density r^-3: uint8."""
    canvas = _background(size, random)
    least, most = 1.5, min(size) / 3
    count = int(random.integers(200, 1200))
    uniform = random.random(count)
    # The inverse of the distribution function of r^-3 between the two.
    radii = 1 / np.sqrt(uniform / least ** 2 + (1 - uniform) / most ** 2)
    contrast = random.uniform(20, 127)
    mean = random.uniform(60, 195, 3)
    for radius in radii:
        color = np.clip(mean + random.uniform(-contrast, contrast, 3), 0, 255)
        center = (int(random.uniform(0, size[1]) * 2 ** SHIFT), int(random.uniform(0, size[0]) * 2 ** SHIFT))
        cv2.circle(canvas, center, int(radius * 2 ** SHIFT), color.tolist(), -1, cv2.LINE_AA, SHIFT)
    return canvas


def polygons(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Draw polygons and lines over one another: uint8."""
    canvas = _background(size, random)
    for _ in range(int(random.integers(15, 80))):
        center = random.uniform((0, 0), (size[1], size[0]))
        angles = np.sort(random.uniform(0, 2 * np.pi, int(random.integers(3, 8))))
        lengths = random.uniform(3, min(size) / 3) * random.uniform(0.4, 1.2, len(angles))
        corners = center + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        corners = (corners * 2 ** SHIFT).astype(np.int32)
        color = random.uniform(0, 255, 3).tolist()
        if random.random() < 0.3:
            cv2.polylines(canvas, [corners], True, color, int(random.integers(1, 4)), cv2.LINE_AA, SHIFT)
        else:
            cv2.fillPoly(canvas, [corners], color, cv2.LINE_AA, SHIFT)
    return canvas


def text(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Draw lines of letters of one size and color on a plain or shaded ground: uint8."""
    canvas = _background(size, random)
    scale = random.uniform(0.35, 1.6)
    font, color = FONTS[int(random.integers(len(FONTS)))], random.uniform(0, 255, 3).tolist()
    step, thickness = max(int(30 * scale * random.uniform(0.9, 1.6)), 8), int(random.integers(1, 4))
    for row in range(step // 2, size[0] + step, step):
        letters = "".join(LETTERS[i] if i < len(LETTERS) else " "
                          for i in random.integers(len(LETTERS) + 15, size=int(size[1] / (9 * scale)) + 4))
        cv2.putText(canvas, letters, (-int(random.integers(20)), row), font, scale, color, thickness, cv2.LINE_AA)
    if random.random() < 0.5:
        turn = cv2.getRotationMatrix2D((size[1] / 2, size[0] / 2), random.uniform(-45, 45), 1.2)
        canvas = cv2.warpAffine(canvas, turn, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return canvas


def gratings(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Draw stripes or checks in patches of their own period and direction: uint8."""
    y, x = np.mgrid[:size[0], :size[1]].astype(np.float32)
    canvas = np.zeros((*size, 3), np.float32)
    side = int(random.integers(min(size) // 4, min(size) + 1))
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            part = (slice(top, top + side), slice(left, left + side))
            angle, period = random.uniform(0, np.pi), np.exp(random.uniform(np.log(2.5), np.log(24)))
            one, other = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
            wave = np.sin((x[part] * np.cos(angle) + y[part] * np.sin(angle)) * (2 * np.pi / period))
            if random.random() < 0.4:
                wave = wave * np.sin((y[part] * np.cos(angle) - x[part] * np.sin(angle)) * (2 * np.pi / period))
            # A soft step one pixel wide where stripes are hard.
            share = (0.5 + 0.5 * (wave if random.random() < 0.5 else np.clip(wave * period / np.pi, -1, 1)))[..., None]
            canvas[part] = share * one + (1 - share) * other
    return canvas.round().astype(np.uint8)


KINDS: tuple[Callable[[tuple[int, int], np.random.Generator], np.ndarray], ...] = (
    dead_leaves, polygons, text, gratings)


def _background(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """A ground whose color changes evenly from one side to the other, or not at all."""
    one, other = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
    other = one if random.random() < 0.5 else other
    share = np.linspace(0, 1, size[1], dtype=np.float32)[None, :, None]
    line = one * (1 - share) + other * share
    return np.ascontiguousarray(np.broadcast_to(line, (*size, 3)).round().astype(np.uint8))
