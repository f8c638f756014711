"""DDDNet's simulator (`mode: dddnet`): a rectangular aperture, splatted without occlusion.

L. Pan et al., "Dual pixel exploration: simultaneous depth estimation and image restoration", CVPR 2021. Two of
its functions were published in a hidden form only; what stands here was fitted to their demonstration (one
input and output), whose values it gives for 99.99 %. How that simulator treats a focus behind the nearest
things, very large disparities and borders is not known: views are exchanged where the disparity is negative,
`largest` limits it, and squares end at the border.
"""
from typing import NamedTuple

import cv2
import numpy as np

from k3dn_plugin.errors import DataError, SizeError


class DddnetCamera(NamedTuple):
    """Focal length in metres, aperture on the pixel grid, and what the depth is divided by."""

    focal_length: float
    aperture: float
    depth_scale: float


# The five settings of the training set, those of the two test sets, and that of the demonstration.
CAMERAS = (
    DddnetCamera(0.006, 500, 4), DddnetCamera(0.004, 1000, 4), DddnetCamera(0.008, 1500, 3),
    DddnetCamera(0.035, 600, 0.5), DddnetCamera(0.035, 1500, 1.0),
    DddnetCamera(0.030, 1500, 0.2), DddnetCamera(0.030, 1500, 0.8),
    DddnetCamera(0.035, 1500, 0.2),
)


def dddnet_disparity(depth: np.ndarray, camera: DddnetCamera) -> np.ndarray:
    """Compute D = A f (1/z - 1/(z_max - f)) in pixels for depth in metres: the farthest point is in focus."""
    z = depth / camera.depth_scale
    return camera.aperture * camera.focal_length * (1 / z - 1 / (z.max() - camera.focal_length))


def render_dddnet(image: np.ndarray, disparity: np.ndarray, *, largest: float = 80) -> dict[str, np.ndarray]:
    """Render `left`, `right`, `center` (H, W, 3) uint8 and `defocus` (H, W) float32.

    A pixel of disparity D fills a square of side h + 1, h = floor((|D| + 0.5) / 2), from its own row down; in
    the left view from its own column to the right, in the right view to the left. A view is the mean of what
    falls on each pixel. `defocus` is -h (of the family "rectangle": the same distance between the views).

    Args:
        image: (H, W, 3) uint8, sRGB, used as it is.
        disparity: (H, W), `dddnet_disparity`.
        largest: |disparity| is limited to this.

    Raises:
        SizeError, DataError: image and disparity do not fit each other, or are of another kind.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise DataError(f"mode dddnet works on (H, W, 3) uint8, found {image.shape} of {image.dtype}")
    if image.shape[:2] != disparity.shape:
        raise SizeError(f"the image has {image.shape[:2]} pixels, its disparity {disparity.shape}; they must "
                        "agree")
    if not np.isfinite(disparity).all():
        raise DataError("disparity must be given everywhere; fill missing values first")
    disparity = np.clip(disparity, -largest, largest)
    side = np.where(disparity < -0.5, -1, 1) * np.floor((np.abs(disparity) + 0.5) / 2)
    light = np.concatenate([image.astype(np.float64) / 255, np.ones((*image.shape[:2], 1))], 2)
    sums = {"left": np.zeros_like(light), "right": np.zeros_like(light)}
    for h in np.unique(side):
        content = light * (side == h)[..., None]
        reach = int(abs(h))
        # The window of a box filter ends at its anchor: what it sums has been splatted forwards.
        for view, anchor in (("left", reach), ("right", 0)) if h >= 0 else (("right", reach), ("left", 0)):
            sums[view] += cv2.boxFilter(content, -1, (reach + 1, reach + 1), anchor=(anchor, reach),
                                        normalize=False, borderType=cv2.BORDER_CONSTANT)
    views = {view: total[..., :3] / np.maximum(total[..., 3:], 1) for view, total in sums.items()}
    # Where nothing falls (the first rows and columns of near things) the picture itself stands in.
    views = {view: np.where(sums[view][..., 3:] > 0.5, mean, image / 255) for view, mean in views.items()}
    views["center"] = (views["left"] + views["right"]) / 2
    return {**{view: np.round(255 * v).astype(np.uint8) for view, v in views.items()},
            "defocus": -side.astype(np.float32)}
