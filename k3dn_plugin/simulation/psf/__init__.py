"""Point spread functions of the two views."""
from k3dn_plugin.simulation.psf.base import (
    MEASURED,
    KernelPair,
    PsfSettings,
    centroid_gap,
    check_psf,
    kernel_pair,
    kernel_reach,
)

__all__ = ["MEASURED", "KernelPair", "PsfSettings", "centroid_gap", "check_psf", "kernel_pair",
           "kernel_reach"]
