"""Point spread functions of the two views, one family a file."""
from k3dn_plugin.simulation.psf import (butterworth, half_disc, rectangle, soft_disc,  # noqa: F401
                                        translating_disc)
from k3dn_plugin.simulation.psf.base import (FAMILIES, MEASURED, KernelPair, PsfSettings, centroid_gap,
                                             check_psf, kernel_pair, kernel_reach)

__all__ = ["FAMILIES", "MEASURED", "KernelPair", "PsfSettings", "centroid_gap", "check_psf", "kernel_pair",
           "kernel_reach"]
