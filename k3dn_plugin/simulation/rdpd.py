"""The image formation of RDPD's released generator (`mode: rdpd`), value for value.

A. Abuolaim et al., "Learning to reduce defocus blur by realistically modeling dual-pixel data", ICCV 2021. It
is a gather: each pixel is filtered with the kernel of its own depth, on 8-bit sRGB values, with hard masks and
nothing done about occlusion; and it takes the thin lens's blur *diameter* as the kernel's radius. All that is
kept on purpose: `mode: layered` is the better camera, this one makes the data that RDPD was trained on.
"""
from typing import NamedTuple

import cv2
import numpy as np

from k3dn_plugin.data.depth_files import FARTHEST
from k3dn_plugin.errors import DataError, SizeError

SLICES = 2000
LARGEST_RADIUS = 40
SMOOTHING = 7          # kernel side over the smoothing's side


class RdpdCamera(NamedTuple):
    """One of the generator's cameras: focal length, f-number, focus distance and radial distortion (A, B, C, D).

    All are plain numbers; the distance is compared with metres without conversion.
    """

    focal_length: float
    f_number: float
    focus_distance: float
    distortion: tuple[float, float, float, float]


class RdpdPsf(NamedTuple):
    """Parameters of a kernel: order n, cut-off factor a (D0 = 2 r / a), least transmission beta."""

    order: int
    cutoff: float
    floor: float


CAMERAS = (
    RdpdCamera(4, 6, 5, (0.01, 0.0028, 0.0028, 0.9)),
    RdpdCamera(5, 8, 6, (0.008, 0.002, 0.002, 0.92)),
    RdpdCamera(7, 5, 8, (-0.0055, -0.0013, -0.0013, 1.009)),
    RdpdCamera(10, 13, 12, (-0.007, -0.0036, -0.0036, 1.015)),
    RdpdCamera(22, 10, 30, (-0.008, -0.005, -0.005, 1.015)),
)
# The generator's bank; sequence i takes set i mod 12.
PSF_BANK = tuple(RdpdPsf(order, cutoff, floor) for order in (3, 6, 9) for cutoff in (2.5, 2.0)
                 for floor in (0.1, 0.2))


class RdpdKernels(NamedTuple):
    """(K, K) float64 kernels of unit sum, to be applied by correlation, for a point behind the focus."""

    center: np.ndarray
    left: np.ndarray
    right: np.ndarray


def rdpd_radius(depth: np.ndarray | float, camera: RdpdCamera) -> np.ndarray:
    """Compute the signed kernel radius at a depth in metres: whole pixels, at most 40, positive beyond the focus."""
    focal, number, focus, _ = camera
    scale = (focal / number) * (focal * focus / (focus - focal)) / focus
    return np.clip(np.round(scale * (np.asarray(depth) - focus) / depth), -LARGEST_RADIUS, LARGEST_RADIUS)


def rdpd_layers(camera: RdpdCamera) -> np.ndarray:
    """Compute the layers of depth, (layers, 3): radius, nearest depth (included), farthest depth (excluded)."""
    edges = np.linspace(0, FARTHEST, SLICES + 1)
    radii = rdpd_radius((edges[:-1] + edges[1:]) / 2, camera)
    first = np.flatnonzero(np.concatenate([[True], np.diff(radii) != 0]))
    last = np.concatenate([first[1:], [SLICES]])
    layers = np.stack([radii[first], edges[first], edges[last]], 1)
    # So that the farthest depth itself belongs to the last layer.
    layers[-1, 2] += 0.1
    return layers


def rdpd_kernels(radius: int, psf: RdpdPsf) -> RdpdKernels:
    """Compute the kernels for a radius of whole pixels; in focus they are those of one pixel."""
    radius = max(abs(int(radius)), 1)
    side = 2 * radius + 1
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1].astype(np.float64)
    squares = x ** 2 + y ** 2
    ratio = (squares / (2 * radius / psf.cutoff) ** 2) ** psf.order
    ring = ratio / (1 + ratio)
    # Over the square, corners included, though the disc cuts them off below.
    ring = psf.floor + (1 - psf.floor) * (ring - ring.min()) / (ring.max() - ring.min())
    whole = _smoothed(ring * (squares <= radius ** 2), side)
    ramp = np.arange(len(whole)) / (len(whole) - 1)
    left = whole * ramp
    left /= left.sum()
    return RdpdKernels(whole / whole.sum(), left, np.rot90(left, 2))


def _smoothed(kernel: np.ndarray, side: int) -> np.ndarray:
    width = round(side / SMOOTHING) + 1
    width += 1 - width % 2
    if width == 1:
        return kernel
    # The sigma is OpenCV's own rule for this width, given in numbers: asked to choose, OpenCV takes
    # tabulated weights for small widths, and thousands of values of the golden then differ.
    sigma = 0.3 * ((width - 1) / 2 - 1) + 0.8
    return cv2.GaussianBlur(np.pad(kernel, width // 2), (width, width), sigma)


def render_rdpd(image: np.ndarray, depth: np.ndarray, camera: RdpdCamera,
                psf: RdpdPsf) -> dict[str, np.ndarray]:
    """Render `left`, `right`, `center` (H, W, 3) uint8 and `defocus` (H, W) float32, the kernels' signed radius.

    Without the radial distortion (`radial.distort`). OpenCV 4 gives the published values to the last bit;
    OpenCV 5 rounds a few of them the other way.

    Args:
        image: (H, W, 3) uint8, sRGB; the channels' order does not matter.
        depth: (H, W) metres.

    Raises:
        SizeError: image and depth differ in size.
        DataError: the image is not 8-bit, or a depth is negative or missing.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise DataError(f"mode rdpd works on (H, W, 3) uint8, found {image.shape} of {image.dtype}")
    if image.shape[:2] != depth.shape:
        raise SizeError(f"the image has {image.shape[:2]} pixels, its depth {depth.shape}; they must agree")
    depth = np.minimum(depth, FARTHEST)
    if not (np.isfinite(depth).all() and depth.min() >= 0):
        raise DataError("depth must be given everywhere, in metres; found negative or missing values "
                        "(fill them first)")
    views = {view: np.zeros_like(image) for view in ("center", "left", "right")}
    defocus = np.zeros(depth.shape, np.float32)
    for radius, near, far in rdpd_layers(camera):
        inside = (near <= depth) & (depth < far)
        if not inside.any():
            continue
        kernels = rdpd_kernels(radius, psf)
        if radius < 0:
            kernels = RdpdKernels(kernels.center, kernels.right, kernels.left)
        for view, kernel in zip(views, kernels, strict=True):
            views[view][inside] = cv2.filter2D(image, -1, kernel)[inside]
        defocus[inside] = radius
    return {**views, "defocus": defocus}


def rdpd_disparity(defocus: np.ndarray, psf: RdpdPsf) -> np.ndarray:
    """Compute the (H, W) disparity in pixels that was rendered for whole-pixel radii: the kernels' centroid gap.

    In focus, too: the kernels are those of one pixel there.
    """
    disparity = np.zeros(defocus.shape, np.float32)
    for radius in np.unique(defocus):
        kernels = rdpd_kernels(int(radius), psf)
        columns = np.arange(kernels.left.shape[1]) - kernels.left.shape[1] // 2
        # The kernels are for correlation: light moves against their centroid.
        gap = float(((kernels.left - kernels.right) * columns).sum())
        disparity[defocus == radius] = -gap if radius < 0 else gap
    return disparity
