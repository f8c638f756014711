"""Punnappurath et al., "Modeling defocus-disparity in dual-pixel sensors", ICCP 2020."""
import math

import torch

from k3dn_plugin.simulation.psf.base import disc, register_psf


@register_psf("translating_disc")
def translating_disc(x, y, radius, parameters):
    """Mean over i = 0 .. 2r+1 of D_r(x) D_r(x + i): sharpest at the left rim, fading to the right."""
    total = torch.zeros_like(x)
    for i in range(math.ceil(2 * radius) + 2):
        total += disc(x + i, y, radius)
    return disc(x, y, radius) * total
