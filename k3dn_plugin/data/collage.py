"""Pictures put together: captions above panels, panels beside each other, rows below each other, on white."""
from collections.abc import Sequence

import cv2
import numpy as np

GAP = 6            # pixels between two panels
WHITE = 255


def eight_bits(image: np.ndarray) -> np.ndarray:
    """Return the uint8 of a picture of uint8, uint16 (the high byte) or floats in [0, 1] (rounded)."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    return np.ascontiguousarray((255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8))


def captioned(picture: np.ndarray, text: str, *, height: int = 26, size: float = 0.5) -> np.ndarray:
    """Put a caption in a white bar above a picture (H, W, 3) uint8; what does not fit in its width is cut.

    Args:
        height: of the bar in pixels.
        size: of the letters, as OpenCV scales them.
    """
    bar = np.full((height, picture.shape[1], 3), WHITE, np.uint8)
    # The built-in strokes know ASCII alone.
    text = " ".join(text.split()).encode("ascii", "replace").decode()
    while text and cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0] > picture.shape[1] - 8:
        text = text[:-1]
    cv2.putText(bar, text, (6, height - 8), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def color_of_radius(radius: np.ndarray) -> np.ndarray:
    """Return color (H, W) blur radii: blue nearer than focus, white in focus, red beyond; (H, W, 3) uint8."""
    value = np.clip(radius / max(float(np.abs(radius).max()), 1e-6), -1, 1)[..., None]
    near, far = np.array([40, 90, 200]), np.array([200, 50, 40])
    mixed = np.where(value < 0, 255 + value * (255 - near), 255 - value * (255 - far))
    return mixed.round().astype(np.uint8)


def beside(pictures: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Put pictures (H, W, 3) uint8 beside each other, lower ones filled up with white below."""
    return _joined(pictures, 1, gap)


def stacked(rows: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Put pictures (H, W, 3) uint8 below each other, narrower ones filled up with white on the right."""
    return _joined(rows, 0, gap)


def _joined(pictures: Sequence[np.ndarray], axis: int, gap: int) -> np.ndarray:
    across = 1 - axis
    widest, parts = max(picture.shape[across] for picture in pictures), []
    for picture in pictures:
        missing = [(0, 0)] * 3
        missing[across] = (0, widest - picture.shape[across])
        if parts and gap:
            shape = [widest, widest, 3]
            shape[axis] = gap
            parts.append(np.full(shape, WHITE, np.uint8))
        parts.append(np.pad(picture, missing, constant_values=WHITE))
    return np.concatenate(parts, axis)
