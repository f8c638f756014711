"""What every image metric shares: the shapes it takes and the precision it computes in."""
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch

from k3dn_plugin.errors import SizeError


class Metric(ABC):
    """A score of a restored image against the truth: `metric(restored, gt) -> float`.

    Images are (3, H, W), or (B, 3, H, W) for the mean of the images' scores, with values in the units of
    [0, 1] and not quantized; what a protocol rounds or clamps, it does before. Computed in float64.

    Attributes:
        higher_is_better: which way the score improves.
        unit: "dB", or the empty string.
    """

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""

    def __call__(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the score of one image, or the mean of a batch's."""
        restored, gt = image_batches(restored, gt)
        scores = [self.score(one, truth) for one, truth in zip(restored, gt)]
        return float(sum(scores) / len(scores))

    @abstractmethod
    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """The score of one image: two float64 tensors (C, H, W)."""


def image_batches(restored: torch.Tensor, gt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both images as float64 (B, C, H, W), checked.

    Raises:
        SizeError: not (C, H, W) or (B, C, H, W), no image at all, or two different shapes.
    """
    if restored.shape != gt.shape:
        raise SizeError(f"a score needs two images of one size; restored is {tuple(restored.shape)}, the "
                        f"truth {tuple(gt.shape)}. Crop or resize both as one protocol says")
    if restored.ndim not in (3, 4) or 0 in restored.shape:
        raise SizeError("a score needs images (3, H, W) or (B, 3, H, W) with at least one pixel; found "
                        f"{tuple(restored.shape)}")
    shape = (-1, *restored.shape[-3:])
    return restored.detach().double().reshape(shape), gt.detach().double().reshape(shape)


def channels_last(image: torch.Tensor) -> np.ndarray:
    """A tensor (C, H, W) as a NumPy array (H, W, C)."""
    return image.permute(1, 2, 0).cpu().numpy()
