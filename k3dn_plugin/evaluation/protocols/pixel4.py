"""Scores on linear raw data: the Pixel 4 pairs of Xin et al. (ICCV 2021)."""
import torch

from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.simulation.color import linear_to_srgb

RING = 1


class _Pixel4(EvaluationProtocol):
    linear = True
    reading = ("14-bit raw, linear: (value - 1024) / 16383 clipped at 0, no gamma; green repeated "
               "in three channels")
    size = f"central 1008 x 1344 pixels without their outermost {RING} (where the truth is zero)"

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Scores without the ring."""
        return super().score(without_ring(restored), without_ring(gt))

    def display(self, image: torch.Tensor) -> torch.Tensor:
        """The image as it should look on a screen."""
        # Linear light looks almost black; the exponent is that of a common screen.
        return image.clamp(0, 1) ** (1 / 2.2)


@PROTOCOLS.register_module(name="pixel4_linear")
class Pixel4Linear(_Pixel4):
    """Peak 1 is the sensor's full scale: the raw left view scores 26 to 37 dB by scene."""

    name = "pixel4_linear"
    usual_for = ("pixel4",)
    source = "ours, on the data of Xin et al. (ICCV 2021); peak 1 of linear data"


@PROTOCOLS.register_module(name="pixel4_scaled")
class Pixel4Scaled(_Pixel4):
    """Each scene divided by its truth's maximum first, so that dark scenes weigh as bright ones."""

    name = "pixel4_scaled"
    source = "ours, on the data of Xin et al. (ICCV 2021); each scene divided by its truth's maximum"
    output = "clamped to [0, 1], float, not quantised; restored and truth divided by the truth's maximum"

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Scores of restored and truth over the truth's maximum."""
        scale = gt.max().clamp(min=1e-6)
        return super().score((restored / scale).clamp(0, 1), gt / scale)


@PROTOCOLS.register_module(name="linear_float")
class LinearFloat(EvaluationProtocol):
    """Linear light of any camera and bit depth, whole frames; comparable with nothing published."""

    name = "linear_float"
    source = "ours: the formulas of dpdd16 for linear light"
    linear = True

    def display(self, image: torch.Tensor) -> torch.Tensor:
        """The image as it should look on a screen."""
        return linear_to_srgb(image)


def without_ring(image: torch.Tensor) -> torch.Tensor:
    """(C, H, W) without the outermost pixels."""
    return image[..., RING:-RING, RING:-RING]
