"""Pan et al., "Dual pixel exploration: simultaneous depth estimation and image restoration", CVPR 2021."""
from k3dn_plugin.simulation.psf.base import register_psf


@register_psf("rectangle")
def rectangle(x, y, radius, parameters):
    """A rectangular aperture, 2 r wide and r high, split in two: each view sees a filled square of side r.

    The centroid of a view lies r / 2 from the middle. `simulation/dddnet.py` is the published simulator, with
    its whole-pixel squares and its splatting.
    """
    return ((x.abs() <= radius) & (y.abs() <= radius / 2) & (x < 0)).to(x.dtype)
