"""What the PSF families share: a family says how the left view sees a point beyond the focus; the rest follows.

On the optical axis the right view's kernel is the mirror image, the other side of focus swaps the views, and
the kernel of the combined picture is the mean of both. A real pixel separates the views less than an ideal
one: a share of each view's light is that of the whole aperture. Away from the axis the pupil is cut from one
side, so the mirror holds about the axis and not at each pixel: k_left(u, v) = mirror of k_right(-u, v) for a
place (u, v) of the field, from -1 at the left or upper edge of the frame to 1.

A density becomes a kernel by linear interpolation: each bit of light is shared out over the four nearest
pixels. That keeps its centroid exactly, whatever the radius: for a family that scales with the radius (all of
`families.py`) the distance between the views' centroids is proportional to the radius from 0 on, and the
kernels change continuously down to the point at r = 0. (Area sampling would leave no shift at all below half
a pixel.)

A family is a function `f(x, y, radius, parameters) -> density`, for r > 0, of the left view, registered in
`PSF_FAMILIES`; `x` and `y` are offsets in pixels within the radius, and the density need not be normalized.
"""
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from cachetools import LRUCache

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.psf.measured import load_bank

MEASURED = "measured"  # the family that comes from a folder of kernels instead of a formula
SAMPLES = 128          # of a density along an axis; even, so that none lies on the line between the halves
ALIGNED_WITH = ("center", "left")
POINT = 1e-4           # pixels of radius below which a kernel is a point
# Light across the aperture goes like exp(LEAN tilt x / r). At a field tilt of 0.8 the kernels then have the skewness
# over the field of those that were measured on a Pixel 4 (-0.41 to 0.44 from edge to edge), and, as there, their
# distance stays nearly the same.
LEAN = 1.6
_KERNELS: LRUCache = LRUCache(512)


@dataclass(frozen=True)
class PsfSettings:
    """One lens and sensor.

    Attributes:
        family: name in `PSF_FAMILIES`.
        separation: share of the ideal separation between the views, 0 (none) to 1. Real sensors: 0.35 to 1
            in terms of the half disc, whose centroid gap is 0.42 of its diameter.
        tilt: weight of one side of the kernels against the other, the same in both views, wherever in the
            field and on whichever side of focus; -1 to 1. The pair's centroid stays where it is, so that the
            truth stays aligned with the views.
        aspect: height of the aperture over its width (cat's eye).
        parameters: of the family; of "measured" (`psf/measured.py`) the `folder` and perhaps the `grid`.
        field_tilt: by how much `tilt` changes from the optical axis to the edge of the field. Positive, light
            beyond the focus leans towards the axis (measured on a Pixel 4: about 0.8), nearer than it away from
            it, as a pupil that is cut from one side makes it. -1 to 1.
        position: (u, v), the place in the field.
        aligned_with: "center": the mean of the views lies on the point's true place, as the picture of the whole
            aperture does; "left": the left view does, and the right one has the whole disparity.
    """

    family: str = "half_disc"
    separation: float = 0.8
    tilt: float = 0.0
    aspect: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    field_tilt: float = 0.0
    position: tuple[float, float] = (0.0, 0.0)
    aligned_with: str = "center"

    @property
    def varies(self) -> bool:
        """Whether the kernels differ from place to place."""
        return bool(self.field_tilt) or self.family == MEASURED

    def at(self, position: tuple[float, float]) -> "PsfSettings":
        """Return the same lens at another place (u, v) of the field."""
        return replace(self, position=position)


class KernelPair(NamedTuple):
    """(k, k) kernels of unit sum; a view is the light that it collects, scaled to full brightness."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def center(self) -> torch.Tensor:
        """The kernel of the combined picture, the mean of the views."""
        return (self.left + self.right) / 2


def kernel_pair(radius: float, settings: PsfSettings, *, size: int | None = None) -> KernelPair:
    """Compute the two views' kernels for a signed blur radius.

    Args:
        radius: r in pixels; at 0 both kernels are a point.
        settings: the lens and sensor.
        size: side of the kernels, odd; the smallest that holds the blur if None.

    Raises:
        OptionError: the family is unknown, a setting is out of range, or `size` is too small.
    """
    check_psf(settings)
    reach = kernel_reach(radius, settings)
    side = size or 2 * reach + 1
    if side < 2 * reach + 1 or side % 2 == 0:
        raise OptionError(f"a blur radius of {radius:.2f} needs an odd kernel of at least {2 * reach + 1} "
                          f"pixels, found {side}")
    # A scene asks for the same few kernels many times: for its surfaces, and for the disparity map.
    family = settings.family if settings.family == MEASURED else PSF_FAMILIES.get(settings.family)
    key = (radius, side, settings.separation, settings.tilt, settings.aspect, settings.field_tilt, settings.position,
           settings.aligned_with, family, repr(sorted(settings.parameters.items())))
    if key not in _KERNELS:
        _KERNELS[key] = _make_pair(radius, settings, side)
    return _KERNELS[key]


def kernel_reach(radius: float, settings: PsfSettings) -> int:
    """Compute the pixels from the middle of a kernel to its border."""
    if settings.family == MEASURED:
        spill = 1.5  # measured light does not end at the radius of its spread
    else:
        # What leans is centered again, which moves its far rim outwards.
        lean = LEAN * (abs(settings.tilt) + abs(settings.field_tilt))
        spill = max(1 + min(0.25 * lean, 0.6), settings.aspect)
    if settings.aligned_with == "left":
        spill += 0.5  # no family's centroid lies further from the middle
    return int(abs(radius) * spill) + 1


def check_psf(settings: PsfSettings) -> None:
    """Raise `OptionError` for a family that there is not, or a setting out of range."""
    if settings.family != MEASURED and settings.family not in PSF_FAMILIES:
        known = ", ".join([*PSF_FAMILIES.names(), MEASURED])
        raise OptionError(f"no PSF family {settings.family!r}; there are {known}")
    if not 0 <= settings.separation <= 1 or not -1 <= settings.tilt <= 1 or not 0.5 <= settings.aspect <= 2 \
            or not -1 <= settings.field_tilt <= 1:
        raise OptionError("PSF settings out of range (separation 0..1, tilt -1..1, aspect 0.5..2, field_tilt "
                          f"-1..1): {settings}")
    if settings.aligned_with not in ALIGNED_WITH:
        raise OptionError(f"aligned_with: expected one of {', '.join(ALIGNED_WITH)}; found {settings.aligned_with!r}")
    if settings.family == MEASURED and "folder" not in settings.parameters:
        raise OptionError("the family 'measured' needs the folder of its kernels (parameters: folder)")


def centroid_gap(radius: float, settings: PsfSettings) -> float:
    """Compute the pixels by which the right view's light lies right of the left view's: the disparity at a radius."""
    pair = kernel_pair(radius, settings)
    pixel = torch.arange(pair.left.shape[1]) - pair.left.shape[1] // 2
    return float(((pair.right - pair.left) * pixel).sum())


def disc(x: torch.Tensor, y: torch.Tensor, radius: float) -> torch.Tensor:
    """Compute 1 inside the circle and 0 outside."""
    return (x ** 2 + y ** 2 <= radius ** 2).to(x.dtype)


def _make_pair(radius: float, settings: PsfSettings, side: int) -> KernelPair:
    if abs(radius) < POINT:
        point = torch.zeros(side, side)
        point[side // 2, side // 2] = 1
        return KernelPair(point, point)
    left, right, extent = _densities(radius, settings)
    unit = _offsets() * extent
    # Both views move alike, so that what the truth is aligned with is centered on the point's true place.
    middle = left.sum(0) @ unit if settings.aligned_with == "left" else ((left + right).sum(0) @ unit) / 2
    across = _hat_weights(abs(radius) * (unit - middle), side)
    down = _hat_weights(abs(radius) * settings.aspect * unit, side)
    return KernelPair(*((down.T @ density @ across).float() for density in (left, right)))


def _densities(radius: float, settings: PsfSettings) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Both views' (SAMPLES, SAMPLES) densities of unit sum, and their half width in units of the radius."""
    magnitude = abs(radius)
    extent = 1.5 if settings.family == MEASURED else 1.0
    offsets = _offsets() * (extent * magnitude)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    if settings.family == MEASURED:
        bank = load_bank(str(settings.parameters["folder"]), tuple(settings.parameters.get("grid", (6, 8))))
        left, right = (d / d.sum() for d in bank.density(x, y, magnitude, settings.position))
    else:
        left = PSF_FAMILIES.get(settings.family)(x, y, magnitude, settings.parameters)
        left = left / left.sum()
        right = left.flip(1)
    whole = (left + right) / 2
    pair = [settings.separation * view + (1 - settings.separation) * whole for view in (left, right)]
    if settings.family == MEASURED:
        # A point's rays cross in the focus plane: the other side of it is the same kernel turned.
        pair = [view.flip((0, 1)) for view in pair] if radius < 0 else pair
        return pair[0], pair[1], extent
    # Beyond the focus light leans towards the axis, as measured on a Pixel 4.
    lean = settings.field_tilt * settings.position[0]
    slope = LEAN * (settings.tilt - lean if radius > 0 else settings.tilt + lean)
    if slope:
        weight = (slope * _offsets()).exp()
        pair = [view * weight / (view * weight).sum() for view in pair]
    if radius < 0:
        pair.reverse()
    return pair[0], pair[1], extent


@functools.lru_cache(maxsize=1)
def _offsets() -> torch.Tensor:
    """Middles of SAMPLES equal parts of [-1, 1]."""
    return (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) * 2 / SAMPLES - 1


def _hat_weights(places: torch.Tensor, side: int) -> torch.Tensor:
    """The share (places, side) of each of `side` pixels, the middle one at 0, in light at each place."""
    pixels = torch.arange(side, dtype=torch.float64) - side // 2
    return (1 - (places[:, None] - pixels).abs()).clamp(min=0)
