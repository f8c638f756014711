"""Abuolaim et al., "Learning to reduce defocus blur by realistically modeling dual-pixel data", ICCV 2021."""
import cv2
import torch

from k3dn_plugin.simulation.psf.base import SAMPLES, disc, register_psf


@register_psf("butterworth")
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
