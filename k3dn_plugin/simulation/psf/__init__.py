"""Point spread functions of the two views, one family a file."""
from k3dn_plugin.simulation.psf import butterworth, half_disc, soft_disc, translating_disc  # noqa: F401
from k3dn_plugin.simulation.psf.base import FAMILIES, KernelPair, PsfSettings, kernel_pair

__all__ = ["FAMILIES", "KernelPair", "PsfSettings", "kernel_pair"]
