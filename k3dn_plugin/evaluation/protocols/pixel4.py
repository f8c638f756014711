"""Scores on linear raw data: the Pixel 4 pairs of Xin et al. (ICCV 2021)."""
from typing import ClassVar

import torch

from k3dn_plugin.evaluation.protocols.base import VIEW_KEYS, EvaluationProtocol, map_images
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.simulation.color import linear_to_srgb

RING = 1
CENTRAL = (576, 768)
BORDER = 8


class _Pixel4(EvaluationProtocol):
    linear = True
    reading = ("14-bit raw, linear: (value - 1024) / 16383 clipped at 0, no gamma; green repeated "
               "in three channels")
    size = f"central 1008 x 1344 pixels without their outermost {RING} (where the truth is zero)"

    border: ClassVar[int] = RING

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Scores without the outermost pixels."""
        inside = (..., slice(self.border, -self.border), slice(self.border, -self.border))
        return super().score(restored[inside], gt[inside])

    def display(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image as it should look on a screen."""
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


@PROTOCOLS.register_module(name="pixel4_encoded")
class Pixel4Encoded(_Pixel4):
    """What somebody would see: each scene as bright as its views are, sRGB-encoded, without its dark surroundings."""

    name = "pixel4_encoded"
    source = "ours, on the data of Xin et al. (ICCV 2021); sRGB-encoded, each scene divided by its views' maximum"
    size = "central 576 x 768 pixels are restored, and scored without the outermost 8"
    output = "clamped to [0, 1], float, not quantised; compared sRGB-encoded, scaled as above"
    border = BORDER

    @property
    def light(self) -> str:
        """In which light the restorer is fed and its output is scored, in words."""
        return "fed and scored sRGB-encoded, after division by the larger view's maximum"

    def prepare(self, sample: dict) -> dict:
        """The central pixels, scaled by the views' maximum; those that are fed encoded, the truth in linear light."""
        scale = sample["lq"].max().clamp(min=1e-6)
        cut = map_images(sample, lambda image: (central(image, CENTRAL) / scale).clamp(0, 1), (*VIEW_KEYS, "gt"))
        return map_images(cut, self.fed, VIEW_KEYS)

    def do_nothing(self, sample: dict, prepared: dict) -> torch.Tensor:
        """Return the blurred center view as an answer."""
        return self.finish(prepared["center"], prepared)

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Scores of restored and truth, encoded, without the border where a restorer lacks its surroundings."""
        restored, gt = self.fed(restored), self.fed(gt)
        return super().score(self.placed(restored, gt), gt)

    def placed(self, restored: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        """Return the encoded image as it is compared with the encoded truth: as it is."""
        return restored

    def display(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image as it should look on a screen."""
        return linear_to_srgb(image)


@PROTOCOLS.register_module(name="linear_float")
class LinearFloat(EvaluationProtocol):
    """Linear light of any camera and bit depth, whole frames; comparable with nothing published."""

    name = "linear_float"
    source = "ours: the formulas of dpdd16 for linear light"
    linear = True

    def display(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image as it should look on a screen."""
        return linear_to_srgb(image)


def central(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(C, H, W) -> its central (C, h, w), or all of a side that is shorter."""
    rows, columns = (slice(max(have - want, 0) // 2, max(have - want, 0) // 2 + want)
                     for have, want in zip(image.shape[-2:], size))
    return image[..., rows, columns]
