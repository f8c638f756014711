"""Structural similarity (Wang et al., TIP 2004) in its two usual variants, by scikit-image.

The variants differ in the third decimal on defocused photographs, so each has its own name and no score
is called plain "SSIM".
"""
from typing import Any, ClassVar

import torch

from k3dn_plugin.errors import SizeError
from k3dn_plugin.evaluation.metrics.base import Metric, channels_last
from k3dn_plugin.registry import METRICS


class StructuralSimilarity(Metric):
    """SSIM per channel, then the mean over channels; K1 0.01, K2 0.03.

    Args:
        data_range: the largest value an image can take.

    Raises:
        SizeError: an image is smaller than the window.
    """

    window = 0
    settings: ClassVar[dict] = {}

    def __init__(self, *, data_range: float = 1.0):
        self.data_range = data_range

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the SSIM of one image."""
        # Imported here: it takes longer than the whole package, and only scoring needs it.
        from skimage.metrics import structural_similarity
        if min(gt.shape[-2:]) < self.window:
            raise SizeError(f"SSIM needs images of at least {self.window} x {self.window} pixels; found "
                            f"{gt.shape[-2]} x {gt.shape[-1]}")
        value: Any = structural_similarity(channels_last(gt), channels_last(restored), channel_axis=2,
                                           data_range=self.data_range, **self.settings)
        return float(value)


@METRICS.register_module(name="ssim_uniform7")
class SsimUniform7(StructuralSimilarity):
    """scikit-image's defaults: 7 x 7 uniform window, sample covariance, 3 pixels of border left out.

    The variant of DPDNet, Restormer, IFAN, DRBNet and K3DN.
    """

    window = 7


@METRICS.register_module(name="ssim_gaussian11")
class SsimGaussian11(StructuralSimilarity):
    """The original paper's: 11 x 11 Gaussian window, sigma 1.5, population covariance, 5 pixels left out.

    The variant of BasicSR and MMagic.
    """

    window = 11
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
