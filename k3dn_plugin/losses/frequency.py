"""Distances in the Fourier domain."""
import torch

from k3dn_plugin.losses.base import PairLoss
from k3dn_plugin.registry import LOSSES


@LOSSES.register_module()
class FFTLoss(PairLoss):
    """Mean absolute difference of the real and imaginary parts of the 2-D spectra.

    Orthonormal transform, so that the value does not grow with the size of the crop.
    """

    def distance(self, predicted, target):
        # The FFT has no bfloat16 kernel; under autocast the prediction may come in half precision.
        difference = torch.fft.rfft2((predicted - target).float(), norm="ortho")
        return torch.view_as_real(difference).abs().mean()
