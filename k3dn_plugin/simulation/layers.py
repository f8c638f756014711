"""Occlusion-aware rendering: surfaces are blurred one by one and laid over one another, back to front.

A surface may slant: its light is shared out over the two nearest levels of blur radius and each share is
spread by its kernel. Surfaces cover what lies behind them by their *blurred* coverage, so a blurred foreground
lets the background through at its rim, and a sharp one stays sharp over a blurred background. All in linear
light.
"""
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from k3dn_plugin.errors import SizeError
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.psf import PsfSettings
from k3dn_plugin.simulation.spread import FAST_STEP, STEP, Surface, spread_part, spread_surface

# Neighbors whose radii differ by more lie on two surfaces, the nearer of which hides some of the other.
STEP_OF_DEPTH = 0.2
MOST_CUTS = 24
FEW_CUTS = 8  # for the fast renderer

def render_pair(surfaces: Sequence[Surface], settings: PsfSettings, *, window: FieldWindow | None = None,
                fast: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Render the left and the right view, (3, H, W) each, of surfaces listed back to front, on their device.

    The rearmost surface must cover everything. (left + right) / 2 is the combined picture.

    Args:
        surfaces: `Surface`s of one size.
        settings: the lens and sensor.
        window: of the picture in the camera's frame, for lenses that differ over the field; the picture is
            the frame if None.
        fast: transform only what a surface covers, with fewer levels of radius (`spread.FAST_STEP`).

    Raises:
        SizeError: a surface differs in size, or the rearmost leaves holes.
    """
    shape = surfaces[0].color.shape[-2:]
    if float(surfaces[0].alpha.min()) < 1:
        raise SizeError("the rearmost surface must cover the whole picture (alpha 1 everywhere)")
    views: list[torch.Tensor] = []
    for surface in surfaces:
        if surface.color.shape[-2:] != shape or surface.radius.shape != shape:
            raise SizeError(f"surfaces of one scene must have one size, found {tuple(shape)} and "
                            f"{tuple(surface.color.shape[-2:])}")
        if fast or settings.varies or surface is not surfaces[0]:
            spread = spread_part(surface, settings, window, FAST_STEP if fast else STEP)
        else:
            spread = spread_surface(surface, settings)
        if not views:
            views = [light / coverage.clamp(min=1e-6) for light, coverage in spread]
            continue
        views = [below * (1 - coverage.clamp(max=1)) + light / coverage.clamp(min=1)
                 for (light, coverage), below in zip(spread, views, strict=True)]
    return views[0], views[1]


def surfaces_from_depth(image: torch.Tensor, radius: torch.Tensor, *, thickness: float = 1.5,
                        aligned: bool = False) -> list[Surface]:
    """Cut an RGB-D picture into surfaces, back to front.

    Slabs of at most `thickness` pixels of radius, cut so that as many steps of depth as possible (neighbors whose
    radii differ by more than `STEP_OF_DEPTH`) lie between two of them; each owns some pixels. A slab stretches
    behind whatever is nearer. Where a slope goes on into the next slab it hides nothing, and the slab goes on with
    the picture's own colors; behind what stands in front, colors and radii are filled in from its own, so that
    blurring never pulls foreground into it nor leaves a hole.

    Args:
        image: (3, H, W) linear light.
        radius: (H, W) signed blur radius, larger farther away on either side of the focus.
        thickness: of a slab, in pixels of radius.
        aligned: cut at multiples of `thickness`, where there are levels of radius: fewer of them, for the fast
            renderer.
    """
    step, cuts = _cuts_through_steps(radius, FEW_CUTS if aligned else MOST_CUTS)
    bonds = radius.diff(dim=0).abs() <= step, radius.diff(dim=1).abs() <= step
    low, high = float(radius.min()), float(radius.max())
    if aligned:
        multiples = np.arange(math.ceil(low / thickness), high / thickness) * thickness
        apart = [m for m in multiples if not len(cuts) or np.abs(cuts - m).min() > thickness / 2]
        cuts = np.concatenate([cuts, apart])
    # Light of a slab is seen no farther behind a nearer one than both spread.
    margin = 2 * math.ceil(max(abs(low), abs(high))) + 4
    slabs = list(_slabs(radius, thickness, cuts))
    surfaces = []
    for number, (near, far) in enumerate(slabs):
        own = (radius >= near) & (radius <= far)
        if number == len(slabs) - 1:
            shown = own
        else:
            shown = _connected(own, own | ((radius < near) & (radius >= near - thickness)), bonds)
        alpha = radius <= far
        if number:
            alpha &= _dilated(own, margin)
        surfaces.append(_surface(image, radius, shown & alpha, alpha))
    return surfaces


def _surface(image: torch.Tensor, radius: torch.Tensor, shown: torch.Tensor, alpha: torch.Tensor) -> Surface:
    """A surface of coverage `alpha` whose colors and radii are the picture's where `shown`, and filled in elsewhere."""
    spans = [torch.nonzero(alpha.any(axis))[:, 0] for axis in (1, 0)]
    rows, columns = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    part = torch.cat([image, radius[None]])[:, rows, columns]
    filled = fill_holes(part, shown[None, rows, columns].float())
    color = torch.zeros_like(image)
    color[:, rows, columns] = filled[:3]
    # Outside there is no light; a radius of its own keeps a flat surface flat.
    spread = torch.full_like(radius, float(filled[3].flatten()[0]))
    spread[rows, columns] = filled[3]
    return Surface(color, alpha.float()[None], spread)


def _dilated(own: torch.Tensor, margin: int) -> torch.Tensor:
    """The pixels within `margin` rows and columns of one of `own`."""
    line = np.ones((1, 2 * margin + 1), np.uint8)
    grown = cv2.dilate(cv2.dilate(own.cpu().numpy().astype(np.uint8), line), line.T)
    return torch.from_numpy(np.asarray(grown)).to(own.device) > 0


def _slabs(radius: torch.Tensor, thickness: float, cuts: np.ndarray) -> Iterator[tuple[float, float]]:
    """(least, largest radius) of each slab, from far to near; there are pixels of both."""
    values = torch.unique(radius).cpu().numpy()
    for group in reversed(np.split(values, np.searchsorted(values, np.unique(cuts), side="right"))):
        if not len(group):
            continue
        parts = max(1, math.ceil((group[-1] - group[0]) / thickness - 1e-6))
        edges = np.linspace(group[0], group[-1], parts + 1)[1:-1]
        for part in reversed(np.split(group, np.searchsorted(group, edges, side="right"))):
            if len(part):
                yield float(part[0]), float(part[-1])


def _cuts_through_steps(radius: torch.Tensor, most: int) -> tuple[float, np.ndarray]:
    """What counts as a step of depth, and radii, as few as will do, of which one lies within each step."""
    values = radius.cpu().numpy()
    low = np.concatenate([np.minimum(values[1:], values[:-1]).ravel(),
                          np.minimum(values[:, 1:], values[:, :-1]).ravel()])
    high = np.concatenate([np.maximum(values[1:], values[:-1]).ravel(),
                           np.maximum(values[:, 1:], values[:, :-1]).ravel()])
    step = STEP_OF_DEPTH
    while True:
        larger = high - low > step
        low, high = low[larger], high[larger]
        cuts: list[float] = []
        # The fewest points that meet all intervals: by upper end, each interval that no point has met adds one.
        order = np.argsort(high, kind="stable")
        lows, highs = low[order], high[order]
        while len(lows) and len(cuts) <= most:
            cuts.append(float(highs[0]) - step / 2)
            unmet = lows > cuts[-1]
            lows, highs = lows[unmet], highs[unmet]
        if len(cuts) <= most:
            return step, np.array(cuts)
        # A noisy map, or a steep slope: only larger steps count.
        step *= 2


def _connected(own: torch.Tensor, among: torch.Tensor, bonds: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The pixels of `among` from which a way without a step of depth leads to one of `own`."""
    if bool((among == own).all()):
        return own
    down, across = bonds
    # Pixels at even places, the bonds between them at odd ones: connected parts are then OpenCV's.
    height, width = own.shape
    drawn = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    drawn[::2, ::2] = among.cpu().numpy()
    drawn[1::2, ::2] = (down & among[1:] & among[:-1]).cpu().numpy()
    drawn[::2, 1::2] = (across & among[:, 1:] & among[:, :-1]).cpu().numpy()
    count, parts = cv2.connectedComponents(drawn, connectivity=4)
    labels = np.asarray(parts, np.int64)[::2, ::2]
    held = np.zeros(count, bool)
    held[labels[own.cpu().numpy()]] = True
    held[0] = False
    return torch.from_numpy(held[labels]).to(own.device)


def fill_holes(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Fill the places of a (C, H, W) image where `valid` (1, H, W) is 0, by push and pull.

    Pulls averages of valid pixels up a pyramid and pushes them down into the holes.
    """
    if bool((valid > 0).all()) or not bool((valid > 0).any()):
        return image
    height, width = image.shape[-2:]
    if min(height, width) == 1:
        mean = (image * valid).sum((1, 2), keepdim=True) / valid.sum()
        return torch.where(valid > 0, image, mean)
    weight = F.avg_pool2d(valid[None], 2, ceil_mode=True, count_include_pad=False)[0]
    color = F.avg_pool2d((image * valid)[None], 2, ceil_mode=True, count_include_pad=False)[0]
    coarse = fill_holes(color / weight.clamp(min=1e-6), (weight > 0).float())
    pushed = F.interpolate(coarse[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    return torch.where(valid > 0, image, pushed)
