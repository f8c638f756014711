"""The PSF families with a formula.

Half and soft disc: ours. Translating disc: Punnappurath et al., "Modeling defocus-disparity in dual-pixel sensors",
ICCP 2020. Rectangle: Pan et al., "Dual pixel exploration: simultaneous depth estimation and image restoration", CVPR
2021. Butterworth: Abuolaim et al., "Learning to reduce defocus blur by realistically modeling dual-pixel data",
ICCV 2021.
"""
import math

import cv2
import torch

from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.psf.base import SAMPLES, disc


@PSF_FAMILIES.register_module("half_disc")
def half_disc(x, y, radius, parameters):
    """k_left = D_r [x < 0]: centroid 4 r / (3 pi) from the middle."""
    return disc(x, y, radius) * (x < 0)


@PSF_FAMILIES.register_module("soft_disc")
def soft_disc(x, y, radius, parameters):
    """k_left = D_r times a logistic in -x; `softness` (default 0.25) is its width over the radius."""
    return disc(x, y, radius) * torch.sigmoid(-x / (parameters.get("softness", 0.25) * radius))


@PSF_FAMILIES.register_module("translating_disc")
def translating_disc(x, y, radius, parameters):
    """Mean over i = 0 .. 2r+1 of D_r(x) D_r(x + i): sharpest at the left rim, fading to the right."""
    total = torch.zeros_like(x)
    for i in range(math.ceil(2 * radius) + 2):
        total += disc(x + i, y, radius)
    return disc(x, y, radius) * total


@PSF_FAMILIES.register_module("rectangle")
def rectangle(x, y, radius, parameters):
    """A rectangular aperture, 2 r wide and r high, split in two: each view sees a filled square of side r.

    The centroid of a view lies r / 2 from the middle. `simulation/dddnet.py` is the published simulator, with
    its whole-pixel squares and its splatting.
    """
    return ((x.abs() <= radius) & (y.abs() <= radius / 2) & (x < 0)).to(x.dtype)


@PSF_FAMILIES.register_module("butterworth")
def butterworth(x, y, radius, parameters):
    """A ring (Butterworth high-pass times disc), smoothed, times a linear ramp across the aperture.

    Parameters (of the released code): `order` n (3, 6 or 9; default 6), `cutoff` alpha with
    D0 = 2 r / alpha (2 or 2.5; default 2.5), `floor` beta, the least transmission (default 0.1). The
    smoothing's width is r / 7.
    """
    order, cutoff, floor = (parameters.get(k, v) for k, v in (("order", 6), ("cutoff", 2.5), ("floor", 0.1)))
    squares = x ** 2 + y ** 2
    ratio = (squares / (2 * radius / cutoff) ** 2) ** order
    ring = ratio / (1 + ratio)
    ring = (floor + (1 - floor) * ring / ring[squares <= radius ** 2].max()) * disc(x, y, radius)
    ring = torch.from_numpy(cv2.GaussianBlur(ring.numpy(), (0, 0), max(radius / 7 * SAMPLES, 0.1)))
    return ring * ((radius - x) / (2 * radius)).clamp(0, 1)
