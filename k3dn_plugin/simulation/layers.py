"""Occlusion-aware rendering: surfaces are blurred one by one and laid over one another, back to front.

A surface may slant: its light is shared out over the two nearest of a ladder of blur radii and each share is
spread by its kernel. Surfaces cover what lies behind them by their *blurred* coverage, so a blurred foreground
lets the background through at its rim, and a sharp one stays sharp over a blurred background. All in linear
light.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from k3dn_plugin.errors import SizeError
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.psf import PsfSettings
from k3dn_plugin.simulation.spread import FAST_STEP, STEP, spread_part, spread_surface


@dataclass(frozen=True)
class Surface:
    """One thing in the scene.

    Attributes:
        color: (3, H, W) in linear light; valid wherever the surface might show, hidden parts included.
        alpha: (1, H, W) coverage in [0, 1].
        radius: (H, W) signed blur radius in pixels.
    """

    color: torch.Tensor
    alpha: torch.Tensor
    radius: torch.Tensor


def render_pair(surfaces, settings: PsfSettings, *, place: FieldWindow | None = None,
                fast: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The left and the right view, (3, H, W) each, of surfaces listed back to front, on the surfaces' device.

    The rearmost surface must cover everything. (left + right) / 2 is the combined picture.

    Args:
        surfaces: `Surface`s of one size.
        settings: the lens and sensor.
        place: of the picture in the camera's frame, for lenses that differ over the field; the picture is
            the frame if None.
        fast: transform only what a surface covers, on a coarser ladder of radii (`spread.FAST_STEP`).

    Raises:
        SizeError: a surface differs in size, or the rearmost leaves holes.
    """
    shape = surfaces[0].color.shape[-2:]
    if float(surfaces[0].alpha.min()) < 1:
        raise SizeError("the rearmost surface must cover the whole picture (alpha 1 everywhere)")
    views = None
    for surface in surfaces:
        if surface.color.shape[-2:] != shape or surface.radius.shape != shape:
            raise SizeError(f"surfaces of one scene must have one size, found {tuple(shape)} and "
                            f"{tuple(surface.color.shape[-2:])}")
        if fast or settings.varies:
            spread = spread_part(surface, settings, place, FAST_STEP if fast else STEP)
        else:
            spread = spread_surface(surface, settings)
        views = [light / coverage.clamp(min=1e-6) if views is None else
                 below * (1 - coverage.clamp(max=1)) + light / coverage.clamp(min=1)
                 for (light, coverage), below in zip(spread, views or (None, None))]
    return views[0], views[1]


def surfaces_from_depth(image: torch.Tensor, radius: torch.Tensor, *, thickness: float = 1.5,
                        aligned: bool = False) -> list[Surface]:
    """Cut an RGB-D picture into surfaces, back to front.

    Each slab of `thickness` pixels of radius also stretches behind whatever is nearer, with colors filled in
    from its own, so that blurring never pulls foreground into it nor leaves a hole.

    Args:
        image: (3, H, W) in linear light.
        radius: (H, W) signed blur radius, larger farther away on either side of the focus.
        thickness: of a slab, in pixels of radius.
        aligned: cut at multiples of `thickness`, where a ladder of radii has its rungs: fewer of them, for the
            fast renderer.
    """
    low, high = float(radius.min()), float(radius.max())
    if aligned:
        low, high = math.floor(low / thickness) * thickness, math.ceil(high / thickness) * thickness
    count = max(1, round((high - low) / thickness))
    edges = [high - (high - low) * i / count for i in range(count + 1)]
    surfaces = []
    for far, near in zip(edges, edges[1:]):
        alpha = (radius <= far + 1e-4).float()[None]
        # A slope that goes on into the next slab hides nothing; only what stands well in front does.
        own = (radius <= far + 1e-4) & (radius >= near - thickness)
        if not bool(own.any()):
            continue
        color = fill_holes(image, own[None].float())
        surfaces.append(Surface(color, alpha, radius.clamp(near, far)))
    return surfaces


def fill_holes(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(C, H, W) with the places where `valid` (1, H, W) is 0 filled by push and pull.

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
