"""How a surface's light spreads over the views: shared out over levels of blur radius, each with its kernels."""
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len

from k3dn_plugin.layers.filters import transfer_function
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.psf import MEASURED, PsfSettings, kernel_pair, kernel_reach

STEP = 0.5       # pixels of radius between two levels: closer than an eye or a metric can tell
FAST_STEP = 1.0
ONE_RADIUS = 1e-3  # pixels: surfaces whose radii differ by less have one kernel
IN_FOCUS = 1e-3    # pixels: a smaller radius does not spread light

# Light and coverage in a view: (3, H, W) premultiplied, and (1, H, W).
Spread = tuple[torch.Tensor, torch.Tensor]


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


def spread_surface(surface: Surface, settings: PsfSettings) -> list[Spread]:
    """Compute the light and the coverage of a surface in the left and in the right view."""
    height, width = surface.radius.shape
    levels = radius_levels(surface.radius)
    if _in_focus(levels):
        light = surface.color * surface.alpha
        return [(light, surface.alpha), (light, surface.alpha)]
    reach = 2 + int(2 * max(abs(r) for r in levels))
    # Light also comes from outside the picture; reflected borders stand in for it.
    pad = [min(reach, height - 1), min(reach, width - 1)]
    radius = _padded(surface.radius[None], pad)[0]
    content = _padded(torch.cat([surface.color * surface.alpha, surface.alpha]), pad)
    size = tuple(content.shape[-2:])
    sums = [torch.zeros((), device=content.device)] * 2
    for number, level in enumerate(levels):
        share = _share(radius, levels, number)
        if share is not None and not bool(share.any()):
            continue
        spectrum = torch.fft.rfft2(content if share is None else content * share)
        for view, kernel in enumerate(kernel_pair(level, settings)):
            sums[view] = sums[view] + spectrum * transfer_function(kernel.to(content.device), size)
    spread = [torch.fft.irfft2(total, s=size)[:, pad[0]:pad[0] + height, pad[1]:pad[1] + width]
              for total in sums]
    return [(view[:3].clamp(min=0), view[3:].clamp(min=0)) for view in spread]


def spread_part(surface: Surface, settings: PsfSettings, window: FieldWindow | None = None,
                step: float = FAST_STEP) -> list[Spread]:
    """Compute the same as `spread_surface`, quicker, and for kernels that differ from place to place.

    Quicker: only the covered part is transformed, with fewer levels. From place to place: the light of each
    pixel is shared out over the nearest of a few nodes of the field, as it is over the levels.

    Args:
        surface: a `Surface`.
        settings: the lens and sensor.
        window: of the picture in the frame; the picture is the frame if None.
        step: pixels of radius between two levels.
    """
    size = surface.radius.shape[0], surface.radius.shape[1]
    levels = radius_levels(surface.radius, step)
    if _in_focus(levels):
        light = surface.color * surface.alpha
        return [(light, surface.alpha), (light, surface.alpha)]
    reach = kernel_reach(max(levels, key=abs), settings)
    pad = [min(reach, s - 1) for s in size]
    # The coverage of a whole flat surface stays 1.
    solid = len(levels) == 1 and float(surface.alpha.min()) >= 1
    content = surface.color if solid else torch.cat([surface.color * surface.alpha, surface.alpha])
    content = _padded(content, pad)
    radius = _padded(surface.radius[None], pad)[0]
    spans = [(0, s) for s in content.shape[-2:]] if solid else _covered(content[3])
    if spans is None:
        empty = torch.zeros_like(content[:, :size[0], :size[1]])
        return [(empty[:3], empty[3:])] * 2
    (top, bottom), (first, last) = spans
    content, radius = content[:, top:bottom, first:last], radius[top:bottom, first:last]
    cuts = [_transform_cut(span, s, p, reach) for span, s, p in zip(spans, size, pad, strict=True)]
    lengths = [cut[0] for cut in cuts]
    nodes = [(weight if weight is None else weight.to(content)[..., top:bottom, first:last], lens)
             for weight, lens in field_nodes(settings, window or FieldWindow(size), size, pad, coarse=step > STEP)]
    sums = torch.zeros((), device=content.device)
    for number, level in enumerate(levels):
        share = _share(radius, levels, number)
        if share is not None and not bool(share.any()):
            continue
        for weight, lens in nodes:
            part = content if share is None else content * share
            part = part if weight is None else part * weight
            kernels = torch.stack(kernel_pair(level, lens)).to(content.device)
            edge = reach - kernels.shape[-1] // 2
            kernels = F.pad(kernels, (edge,) * 4)
            sums = sums + torch.fft.rfft2(part, s=lengths) * torch.fft.rfft2(kernels, s=lengths)[:, None]
    spread = torch.fft.irfft2(sums, s=lengths)
    canvas = spread.new_zeros(2, len(content), *size)
    (_, rows, to_rows), (_, columns, to_columns) = cuts
    canvas[..., to_rows, to_columns] = spread[..., rows, columns]
    canvas = canvas.clamp(min=0)
    return [(view[:3], torch.ones_like(view[:1]) if solid else view[3:]) for view in canvas]


def field_nodes(settings: PsfSettings, window: FieldWindow, size: tuple[int, int], pad: "list[int]",
                coarse: bool = False) -> list[tuple[torch.Tensor | None, PsfSettings]]:
    """Return places of the field with the share that each pixel's light has in them, and the lens there.

    The shares, (H + 2 pad, W + 2 pad), are None where one lens serves all; else they add up to 1. `coarse`
    takes one lens for a picture that is less than a quarter of the frame, either way.
    """
    if not settings.varies:
        return [(None, settings)]
    across, down = window.across(size[1]), window.down(size[0])
    if coarse and max(across[-1] - across[0], down[-1] - down[0]) < 0.5:
        return [(None, settings.at(window.middle(size)))]
    if settings.family == MEASURED:
        rows, columns = settings.parameters.get("grid", (6, 8))
        us, vs = _cells(across, columns), _cells(down, rows)
    else:
        # What a lens does to light at u lies between what it does at the two ends.
        us, vs = across[[0, -1]], down.mean()[None]
    across, down = (F.pad(c[None, None], (p, p), mode="replicate")[0, 0]
                    for c, p in ((across, pad[1]), (down, pad[0])))
    nodes = []
    for v, in_rows in zip(vs, _hats(down, vs), strict=True):
        for u, in_columns in zip(us, _hats(across, us), strict=True):
            nodes.append((in_rows[:, None] * in_columns, settings.at((float(u), float(v)))))
    return nodes


def radius_levels(radius: torch.Tensor, step: float = STEP) -> list[float]:
    """Return radii, `step` apart, that hold all of `radius` between them; one where it is constant.

    A pixel's light is shared out over the levels below and above its radius, so its kernel lies between theirs;
    its centroid is exact where the family scales with the radius.
    """
    low, high = float(radius.min()), float(radius.max())
    if high - low < ONE_RADIUS:
        return [(low + high) / 2]
    first, last = int(low // step), int(-(-high // step))
    levels = [i * step for i in range(first, last + 1)]
    # Next to the focus wide steps would show: half of a point and half of a disc are no smaller disc.
    between = [r for r in (-STEP, STEP) if r not in levels and levels[0] < r < levels[-1]]
    return sorted(levels + between)


def _in_focus(levels: list[float]) -> bool:
    return len(levels) == 1 and abs(levels[0]) < IN_FOCUS


def _padded(x: torch.Tensor, pad: list[int]) -> torch.Tensor:
    return F.pad(x[None], (pad[1], pad[1], pad[0], pad[0]), mode="reflect")[0]


def _share(radius: torch.Tensor, levels: list[float], number: int) -> torch.Tensor | None:
    """The share of level `number` in light of each radius: linear between levels; None where there is one."""
    if len(levels) == 1:
        return None
    level = levels[number]
    below = (radius - levels[number - 1]) / (level - levels[number - 1]) if number else None
    above = (levels[number + 1] - radius) / (levels[number + 1] - level) if number + 1 < len(levels) else None
    shares = [share for share in (below, above) if share is not None]
    return (shares[0] if len(shares) == 1 else torch.minimum(*shares)).clamp(0, 1)


def _covered(alpha: torch.Tensor) -> list[tuple[int, int]] | None:
    """((top, bottom), (first, last)) of what is covered at all, or None."""
    spans = []
    for axis in (1, 0):
        found = torch.nonzero(alpha.amax(axis) > 1e-3)[:, 0]
        if not len(found):
            return None
        spans.append((int(found[0]), int(found[-1]) + 1))
    return spans


def _transform_cut(span: tuple[int, int], size: int, pad: int, reach: int) -> tuple[int, slice, slice]:
    """(length of the transform, slice of its result, slice of the picture) along one axis.

    A full convolution of `span` is `reach` longer on either side; where what wraps round only meets pixels
    outside the picture, the transform may be shorter than that.
    """
    start = span[0] - reach                          # of the full convolution, in the padded picture
    low, high = max(pad, start), min(pad + size, span[1] + reach)
    full = span[1] - span[0] + 2 * reach
    length: Any = next_fast_len(max(high - start, full - (low - start)), real=True)
    return int(length), slice(low - start, high - start), slice(low - pad, high - pad)


def _cells(coordinates: torch.Tensor, count: int) -> torch.Tensor:
    """Middles of those of `count` equal cells of [-1, 1] that coordinates lie in or next to."""
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) * 2 / count - 1
    reach = 2 / count
    near = (middles > coordinates[0] - reach) & (middles < coordinates[-1] + reach)
    return middles[near]


def _hats(coordinates: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """The share of each coordinate that each of some ascending nodes has: linear between, constant outside."""
    nodes = torch.as_tensor(nodes, dtype=torch.float64)
    if len(nodes) == 1:
        return torch.ones(1, len(coordinates), dtype=torch.float64)
    gaps = nodes.diff()
    place = coordinates.clamp(nodes[0], nodes[-1])
    right = torch.searchsorted(nodes, place, right=True).clamp(1, len(nodes) - 1)
    share = (place - nodes[right - 1]) / gaps[right - 1]
    hats = torch.zeros(len(nodes), len(coordinates), dtype=torch.float64)
    index = torch.arange(len(coordinates))
    hats[right, index] = share
    hats[right - 1, index] = 1 - share
    return hats
