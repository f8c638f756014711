"""Point spread functions of the two views."""
from k3dn_plugin.simulation.psf import families  # noqa: F401  (registers them)
from k3dn_plugin.simulation.psf.base import (
    FAMILIES,
    MEASURED,
    KernelPair,
    PsfSettings,
    centroid_gap,
    check_psf,
    kernel_pair,
    kernel_reach,
)

__all__ = ["FAMILIES", "MEASURED", "KernelPair", "PsfSettings", "centroid_gap", "check_psf", "kernel_pair",
           "kernel_reach"]
