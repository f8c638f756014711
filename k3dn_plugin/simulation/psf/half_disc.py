"""The ideal dual pixel: each photodiode sees exactly one half of the aperture."""
from k3dn_plugin.simulation.psf.base import disc, register_psf


@register_psf("half_disc")
def half_disc(x, y, radius, parameters):
    """k_left = D_r [x < 0]: centroid 4 r / (3 pi) from the middle."""
    return disc(x, y, radius) * (x < 0)
