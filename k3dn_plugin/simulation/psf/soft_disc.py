"""A disc whose halves are parted softly, as light that leaks between the photodiodes does."""
import torch

from k3dn_plugin.simulation.psf.base import disc, register_psf


@register_psf("soft_disc")
def soft_disc(x, y, radius, parameters):
    """k_left = D_r times a logistic in -x; `softness` (default 0.25) is its width over the radius."""
    return disc(x, y, radius) * torch.sigmoid(-x / (parameters.get("softness", 0.25) * radius))
