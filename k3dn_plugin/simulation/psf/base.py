"""What the PSF families share: a family says how the left view sees a point beyond the focus; the rest follows.

The right view's kernel is the mirror image, the other side of focus swaps the views, and the kernel of the
combined picture is the mean of both. A real pixel separates the views less than an ideal one: a share of
each view's light is that of the whole aperture.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from k3dn_plugin.errors import OptionError

FAMILIES: dict[str, Callable] = {}
SAMPLES = 6  # per pixel and axis; even, so that none lies on the line between the halves


def register_psf(name):
    """Make a family known: `f(x, y, radius, parameters) -> density`, for r > 0, of the left view.

    `x`, `y` are offsets in pixels; the density need not be normalised.
    """
    def add(function):
        FAMILIES[name] = function
        return function
    return add


@dataclass(frozen=True)
class PsfSettings:
    """One lens and sensor.

    Attributes:
        family: name in `FAMILIES`.
        split: share of the ideal separation between the views, 0 (none) to 1. Real sensors: 0.35 to 1
            in terms of the half disc, whose centroid gap is 0.42 of its diameter.
        tilt: weight of one side of the aperture against the other, the same in both views, as vignetting
            gives away from the optical axis; -1 to 1.
        aspect: height of the aperture over its width (cat's eye).
        parameters: of the family.
    """

    family: str = "half_disc"
    split: float = 0.8
    tilt: float = 0.0
    aspect: float = 1.0
    parameters: dict = field(default_factory=dict)


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
    if settings.family not in FAMILIES:
        raise OptionError(f"no PSF family {settings.family!r}; there are {', '.join(sorted(FAMILIES))}")
    if not 0 <= settings.split <= 1 or not -1 <= settings.tilt <= 1 or not 0.5 <= settings.aspect <= 2:
        raise OptionError(f"PSF settings out of range (split 0..1, tilt -1..1, aspect 0.5..2): {settings}")
    magnitude = abs(radius)
    reach = int(magnitude * max(1.0, settings.aspect) + 0.5) + 1
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
    density = FAMILIES[settings.family](x, y, magnitude, settings.parameters)
    left = density.reshape(side, SAMPLES, side, SAMPLES).mean((1, 3))
    left = left / left.sum()
    right = left.flip(1)
    whole = (left + right) / 2
    pair = [settings.split * view + (1 - settings.split) * whole for view in (left, right)]
    if settings.tilt:
        pixel = torch.arange(side, dtype=torch.float64) - side // 2
        weight = (1 + settings.tilt * pixel / reach)[None]
        pair = [view * weight / (view * weight).sum() for view in pair]
    if radius < 0:
        pair.reverse()
    return KernelPair(*(view.float() for view in pair))


def disc(x, y, radius):
    """1 inside the circle, 0 outside."""
    return (x ** 2 + y ** 2 <= radius ** 2).to(x.dtype)
