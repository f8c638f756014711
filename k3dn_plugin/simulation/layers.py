"""Occlusion-aware rendering: surfaces are blurred one by one and laid over one another, back to front.

A surface may slant: its light is shared out over the two nearest of a ladder of blur radii and each share is
spread by its kernel. Surfaces cover what lies behind them by their *blurred* coverage, so a blurred foreground
lets the background through at its rim, and a sharp one stays sharp over a blurred background. All in linear
light.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from k3dn_plugin.errors import SizeError
from k3dn_plugin.simulation.psf import PsfSettings, kernel_pair

STEP = 0.5  # pixels of radius between the rungs of the ladder: closer than an eye or a metric can tell


@dataclass(frozen=True)
class Surface:
    """One thing in the scene.

    Attributes:
        colour: (3, H, W) in linear light; valid wherever the surface might show, hidden parts included.
        alpha: (1, H, W) coverage in [0, 1].
        radius: (H, W) signed blur radius in pixels.
    """

    colour: torch.Tensor
    alpha: torch.Tensor
    radius: torch.Tensor


def render_pair(surfaces, settings: PsfSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """The left and the right view, (3, H, W) each, of surfaces listed back to front.

    The rearmost surface must cover everything. (left + right) / 2 is the combined picture.

    Raises:
        SizeError: a surface differs in size, or the rearmost leaves holes.
    """
    shape = surfaces[0].colour.shape[-2:]
    if float(surfaces[0].alpha.min()) < 1:
        raise SizeError("the rearmost surface must cover the whole picture (alpha 1 everywhere)")
    views = None
    for surface in surfaces:
        if surface.colour.shape[-2:] != shape or surface.radius.shape != shape:
            raise SizeError(f"surfaces of one scene must have one size, found {tuple(shape)} and "
                            f"{tuple(surface.colour.shape[-2:])}")
        spread = spread_surface(surface, settings)
        views = [light / coverage.clamp(min=1e-6) if views is None else
                 below * (1 - coverage.clamp(max=1)) + light / coverage.clamp(min=1)
                 for (light, coverage), below in zip(spread, views or (None, None))]
    return views[0], views[1]


def spread_surface(surface: Surface, settings: PsfSettings):
    """[(light, coverage)] of a surface in the left and right view: (3, H, W) premultiplied and (1, H, W)."""
    height, width = surface.radius.shape
    rungs = ladder(surface.radius)
    if len(rungs) == 1 and abs(rungs[0]) < 0.5:
        light = surface.colour * surface.alpha
        return [(light, surface.alpha), (light, surface.alpha)]
    reach = 2 + int(2 * max(abs(r) for r in rungs))
    # Light also comes from outside the picture; reflected borders stand in for it.
    pad = [min(reach, height - 1), min(reach, width - 1)]
    def padded(x):
        return F.pad(x[None], (pad[1], pad[1], pad[0], pad[0]), mode="reflect")[0]
    radius = padded(surface.radius[None])[0]
    content = padded(torch.cat([surface.colour * surface.alpha, surface.alpha]))
    size = content.shape[-2:]
    sums = [0, 0]
    for rung in rungs:
        share = (1 - (radius - rung).abs() / STEP).clamp(min=0) if len(rungs) > 1 else torch.ones_like(radius)
        if not bool(share.any()):
            continue
        spectrum = torch.fft.rfft2(content * share)
        for view, kernel in enumerate(kernel_pair(rung, settings)):
            sums[view] = sums[view] + spectrum * transfer(kernel.to(content.device), size)
    spread = [torch.fft.irfft2(total, s=size)[:, pad[0]:pad[0] + height, pad[1]:pad[1] + width]
              for total in sums]
    return [(view[:3].clamp(min=0), view[3:].clamp(min=0)) for view in spread]


def ladder(radius: torch.Tensor) -> list[float]:
    """Radii, `STEP` apart, that hold all of `radius` between them; one where it is constant."""
    low, high = float(radius.min()), float(radius.max())
    if high - low < 1e-3:
        return [(low + high) / 2]
    first, last = int(low // STEP), int(-(-high // STEP))
    return [i * STEP for i in range(first, last + 1)]


def transfer(kernel: torch.Tensor, size) -> torch.Tensor:
    """One-sided spectrum of a kernel whose anchor is its middle."""
    half = kernel.shape[-1] // 2
    padded = F.pad(kernel, (0, size[1] - kernel.shape[1], 0, size[0] - kernel.shape[0]))
    return torch.fft.rfft2(padded.roll((-half, -half), (0, 1)))


def surfaces_from_depth(image: torch.Tensor, radius: torch.Tensor, *, thickness: float = 1.5) -> list[Surface]:
    """Cut an RGB-D picture into surfaces, back to front.

    Each slab of `thickness` pixels of radius also stretches behind whatever is nearer, with colours filled in
    from its own, so that blurring never pulls foreground into it nor leaves a hole.

    Args:
        image: (3, H, W) in linear light.
        radius: (H, W) signed blur radius, larger farther away on either side of the focus.
    """
    low, high = float(radius.min()), float(radius.max())
    count = max(1, round((high - low) / thickness))
    edges = [high - (high - low) * i / count for i in range(count + 1)]
    surfaces = []
    for far, near in zip(edges, edges[1:]):
        alpha = (radius <= far + 1e-4).float()[None]
        # A slope that goes on into the next slab hides nothing; only what stands well in front does.
        own = (radius <= far + 1e-4) & (radius >= near - thickness)
        if not bool(own.any()):
            continue
        colour = fill_holes(image, own[None].float())
        surfaces.append(Surface(colour, alpha, radius.clamp(near, far)))
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
    colour = F.avg_pool2d((image * valid)[None], 2, ceil_mode=True, count_include_pad=False)[0]
    coarse = fill_holes(colour / weight.clamp(min=1e-6), (weight > 0).float())
    pushed = F.interpolate(coarse[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    return torch.where(valid > 0, image, pushed)
