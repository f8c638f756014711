"""Scores pixel by pixel: PSNR and MAE, as DPDNet and those after it compute them."""
import math

import torch

from k3dn_plugin.evaluation.metrics.base import Metric
from k3dn_plugin.registry import METRICS


@METRICS.register_module(name="psnr")
class PeakSignalToNoise(Metric):
    """10 log10(peak^2 / MSE), the MSE over all pixels and channels of one image.

    Args:
        peak: the largest value an image can take.
        identical: the score where the MSE is 0; Restormer's script gives 100, BasicSR's infinity.
    """

    unit = "dB"

    def __init__(self, *, peak: float = 1.0, identical: float = 100.0):
        self.peak, self.identical = peak, identical

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the PSNR of one image in dB."""
        mse = float((restored - gt).square().mean())
        return self.identical if mse == 0 else 10 * math.log10(self.peak ** 2 / mse)


@METRICS.register_module(name="mae")
class MeanAbsoluteError(Metric):
    """Mean absolute difference over all pixels and channels."""

    higher_is_better = False

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the error of one image."""
        return float((restored - gt).abs().mean())


@METRICS.register_module(name="relative_rmse")
class RelativeRootMeanSquareError(Metric):
    """Root mean square error over all pixels and channels in percent of full scale, as in DDDNet's paper (CVPR 2021).

    Its tables show 100 x 10^(-PSNR / 20): 26.76 dB beside 4.59 %.
    """

    unit = "%"
    higher_is_better = False

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the error of one image in percent."""
        return 100 * float((restored - gt).square().mean().sqrt())
