"""What the PSF families share: a family says how the left view sees a point beyond the focus; the rest follows.

On the optical axis the right view's kernel is the mirror image, the other side of focus swaps the views, and
the kernel of the combined picture is the mean of both. A real pixel separates the views less than an ideal
one: a share of each view's light is that of the whole aperture. Away from the axis the pupil is cut from one
side, so the mirror holds about the axis and not at each pixel: k_left(u, v) = mirror of k_right(-u, v) for a
place (u, v) of the field, from -1 at the left or upper edge of the frame to 1.

A family is a function `f(x, y, radius, parameters) -> density`, for r > 0, of the left view, registered in
`PSF_FAMILIES`; `x` and `y` are offsets in pixels, and the density need not be normalized.
"""
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.psf.measured import load_bank

MEASURED = "measured"  # the family that comes from a folder of kernels instead of a formula
SAMPLES = 6  # per pixel and axis; even, so that none lies on the line between the halves


@dataclass(frozen=True)
class PsfSettings:
    """One lens and sensor.

    Attributes:
        family: name in `PSF_FAMILIES`.
        split: share of the ideal separation between the views, 0 (none) to 1. Real sensors: 0.35 to 1
            in terms of the half disc, whose centroid gap is 0.42 of its diameter.
        tilt: weight of one side of the kernels against the other, the same in both views, wherever in the
            field and on whichever side of focus; -1 to 1.
        aspect: height of the aperture over its width (cat's eye).
        parameters: of the family; of "measured" (`psf/measured.py`) the `folder` and perhaps the `grid`.
        field_tilt: by how much `tilt` changes from the optical axis to the edge of the field. Positive, light
            beyond the focus leans towards the axis (measured on a Pixel 4: about 0.8), nearer than it away from
            it, as a pupil that is cut from one side makes it. -1 to 1.
        position: (u, v), the place in the field.
    """

    family: str = "half_disc"
    split: float = 0.8
    tilt: float = 0.0
    aspect: float = 1.0
    parameters: dict = field(default_factory=dict)
    field_tilt: float = 0.0
    position: tuple[float, float] = (0.0, 0.0)

    @property
    def varies(self) -> bool:
        """Whether the kernels differ from place to place."""
        return bool(self.field_tilt) or self.family == MEASURED

    def at(self, position: tuple[float, float]) -> "PsfSettings":
        """The same lens at another place (u, v) of the field."""
        return replace(self, position=position)


class KernelPair(NamedTuple):
    """(k, k) kernels of unit sum; a view is the light that it collects, scaled to full brightness."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def center(self):
        """The kernel of the combined picture, the mean of the views."""
        return (self.left + self.right) / 2


def kernel_pair(radius: float, settings: PsfSettings, *, size: int | None = None) -> KernelPair:
    """The two views' kernels for a signed blur radius.

    Args:
        radius: r in pixels; below half a pixel it is a point.
        settings: the lens and sensor.
        size: side of the kernels, odd; the smallest that holds the blur if None.

    Raises:
        OptionError: the family is unknown, a setting is out of range, or `size` is too small.
    """
    check_psf(settings)
    magnitude = abs(radius)
    reach = kernel_reach(radius, settings)
    side = size or 2 * reach + 1
    if side < 2 * reach + 1 or side % 2 == 0:
        raise OptionError(f"a blur radius of {radius:.2f} needs an odd kernel of at least {2 * reach + 1} "
                          f"pixels, found {side}")
    if magnitude < 0.5:
        point = torch.zeros(side, side)
        point[side // 2, side // 2] = 1
        return KernelPair(point, point)
    offsets = (torch.arange(side * SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES - side / 2
    y, x = torch.meshgrid(offsets / settings.aspect, offsets, indexing="ij")
    if settings.family == MEASURED:
        return _measured_pair(x, y, radius, settings, side)
    left = _per_pixel(PSF_FAMILIES.get(settings.family)(x, y, magnitude, settings.parameters), side)
    right = left.flip(1)
    whole = (left + right) / 2
    pair = [settings.split * view + (1 - settings.split) * whole for view in (left, right)]
    # Beyond the focus light leans towards the axis, as measured on a Pixel 4.
    lean = settings.field_tilt * settings.position[0]
    slope = settings.tilt - lean if radius > 0 else settings.tilt + lean
    if slope:
        pixel = torch.arange(side, dtype=torch.float64) - side // 2
        weight = (1 + slope * pixel / reach)[None].clamp(min=0)
        pair = [view * weight / (view * weight).sum() for view in pair]
    if radius < 0:
        pair.reverse()
    return KernelPair(*(view.float() for view in pair))


def kernel_reach(radius: float, settings: PsfSettings) -> int:
    """Pixels from the middle of a kernel to its border."""
    # Measured light does not end at the radius of its spread.
    spill = 1.5 if settings.family == MEASURED else max(1.0, settings.aspect)
    return int(abs(radius) * spill + 0.5) + 1


def check_psf(settings: PsfSettings):
    """Raise `OptionError` for a family that there is not, or a setting out of range."""
    if settings.family != MEASURED and settings.family not in PSF_FAMILIES:
        known = ", ".join([*PSF_FAMILIES.names(), MEASURED])
        raise OptionError(f"no PSF family {settings.family!r}; there are {known}")
    if not 0 <= settings.split <= 1 or not -1 <= settings.tilt <= 1 or not 0.5 <= settings.aspect <= 2 \
            or not -1 <= settings.field_tilt <= 1:
        raise OptionError("PSF settings out of range (split 0..1, tilt -1..1, aspect 0.5..2, field_tilt "
                          f"-1..1): {settings}")
    if settings.family == MEASURED and "folder" not in settings.parameters:
        raise OptionError("the family 'measured' needs the folder of its kernels (parameters: folder)")


def centroid_gap(radius: float, settings: PsfSettings) -> float:
    """Pixels by which the right view's light lies right of the left view's: the disparity at a blur radius."""
    pair = kernel_pair(radius, settings)
    pixel = torch.arange(pair.left.shape[1]) - pair.left.shape[1] // 2
    return float(((pair.right - pair.left) * pixel).sum())


def _measured_pair(x, y, radius, settings, side):
    bank = load_bank(str(settings.parameters["folder"]), tuple(settings.parameters.get("grid", (6, 8))))
    left, right = (_per_pixel(d, side) for d in bank.density(x, y, abs(radius), settings.position))
    whole = (left + right) / 2
    pair = [settings.split * view + (1 - settings.split) * whole for view in (left, right)]
    if radius < 0:
        pair = [view.flip((0, 1)) for view in pair]
    return KernelPair(*(view.float() for view in pair))


def _per_pixel(density, side):
    """The density's share of each pixel, of unit sum."""
    kernel = density.reshape(side, SAMPLES, side, SAMPLES).mean((1, 3))
    return kernel / kernel.sum()


def disc(x, y, radius):
    """1 inside the circle, 0 outside."""
    return (x ** 2 + y ** 2 <= radius ** 2).to(x.dtype)
