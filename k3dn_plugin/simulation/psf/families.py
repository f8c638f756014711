"""The PSF families with a formula. All of them scale with the radius.

Half and soft disc: ours. Translating disc: Punnappurath et al., "Modeling defocus-disparity in dual-pixel sensors",
ICCP 2020. Rectangle: Pan et al., "Dual pixel exploration: simultaneous depth estimation and image restoration", CVPR
2021. Butterworth: Abuolaim et al., "Learning to reduce defocus blur by realistically modeling dual-pixel data",
ICCV 2021.
"""
from collections.abc import Mapping
from typing import Any

import cv2
import torch

from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.psf.base import disc

Parameters = Mapping[str, Any]


@PSF_FAMILIES.register_module("half_disc")
def half_disc(x: torch.Tensor, y: torch.Tensor, radius: float, parameters: Parameters) -> torch.Tensor:
    """Compute k_left = D_r [x < 0], whose centroid lies 4 r / (3 pi) from the middle."""
    return disc(x, y, radius) * (x < 0)


@PSF_FAMILIES.register_module("soft_disc")
def soft_disc(x: torch.Tensor, y: torch.Tensor, radius: float, parameters: Parameters) -> torch.Tensor:
    """Compute D_r times a logistic in -x; `softness` (default 0.25) is its width over the radius."""
    return disc(x, y, radius) * torch.sigmoid(-x / (parameters.get("softness", 0.25) * radius))


@PSF_FAMILIES.register_module("translating_disc")
def translating_disc(x: torch.Tensor, y: torch.Tensor, radius: float, parameters: Parameters) -> torch.Tensor:
    """Compute the mean over i from 0 to 2 r of D_r(x) D_r(x + i): sharpest at the left rim, fading to the right.

    Published with whole-pixel steps, i = 0 .. 2r+1, which jump with r; this is the integral that they stand for:
    a row's chord ends at c = (r^2 - y^2)^(1/2), and the discs that still hold x are those of i <= c - x. The
    centroid lies 3 pi r / 32 from the middle.
    """
    chord = (radius ** 2 - y ** 2).clamp(min=0).sqrt()
    return disc(x, y, radius) * (chord - x).clamp(min=0)


@PSF_FAMILIES.register_module("rectangle")
def rectangle(x: torch.Tensor, y: torch.Tensor, radius: float, parameters: Parameters) -> torch.Tensor:
    """Compute a rectangular aperture, 2 r wide and r high, split in two: each view sees a filled square of side r.

    The centroid of a view lies r / 2 from the middle. `simulation/dddnet.py` is the published simulator, with
    its whole-pixel squares and its splatting.
    """
    return ((x.abs() <= radius) & (y.abs() <= radius / 2) & (x < 0)).to(x.dtype)


@PSF_FAMILIES.register_module("butterworth")
def butterworth(x: torch.Tensor, y: torch.Tensor, radius: float, parameters: Parameters) -> torch.Tensor:
    """Compute a ring (Butterworth high-pass times disc), smoothed, times a linear ramp across the aperture.

    Parameters (of the released code): `order` n (3, 6 or 9; default 6), `cutoff` alpha with
    D0 = 2 r / alpha (2 or 2.5; default 2.5), `floor` beta, the least transmission (default 0.1). The
    smoothing's width is r / 7.
    """
    order, cutoff, floor = (parameters.get(k, v) for k, v in (("order", 6), ("cutoff", 2.5), ("floor", 0.1)))
    squares = x ** 2 + y ** 2
    ratio = (squares / (2 * radius / cutoff) ** 2) ** order
    ring = ratio / (1 + ratio)
    ring = (floor + (1 - floor) * ring / ring[squares <= radius ** 2].max()) * disc(x, y, radius)
    spacing = float(x[0, 1] - x[0, 0])
    ring = torch.from_numpy(cv2.GaussianBlur(ring.numpy(), (0, 0), radius / 7 / spacing))
    return ring * ((radius - x) / (2 * radius)).clamp(0, 1)
