"""Losses on the image at three scales, as DeepRFT, SFNet and INIKNet are trained with."""
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.losses.base import look_up
from k3dn_plugin.registry import LOSSES

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
LAPLACE = (0.05, 0.25, 0.4, 0.25, 0.05)
EPS = 1e-3


@LOSSES.register_module()
class MultiScaleLoss(nn.Module):
    """Sum over the full, half and quarter scale of pixel, Fourier and edge distances.

    The defaults are DeepRFT's (Mao et al., training code's facts; the edge term is MPRNet's): Charbonnier, mean
    sqrt(d^2 + 1e-6); 0.01 of the mean modulus of the difference of the full, unnormalized spectra; 0.05 of the
    Charbonnier distance between Laplacians; the targets of the smaller scales are a Gaussian pyramid of the sharp
    image.

    Args:
        weight: factor on the whole.
        frequency, edge: factors of the two terms beside the pixel distance.
        distance: of pixels, "charbonnier", "l1" or "mse".
        spectrum: what the Fourier term takes the mean of: the "modulus" of the difference, or the absolute values
            of its real and imaginary "parts", over both of them (SFNet, INIKNet).
        pyramid: the smaller targets, "gaussian", or "bilinear": the full target sampled at 1/2 and 1/4 by bilinear
            interpolation, without smoothing (SFNet, INIKNet).
        scales: key of the list of smaller predictions, from half size down; without it in the prediction
            the loss is on the full size alone.
    """

    def __init__(self, *, weight: float = 1.0, frequency: float = 0.01, edge: float = 0.05,
                 distance: Literal["charbonnier", "l1", "mse"] = "charbonnier",
                 spectrum: Literal["modulus", "parts"] = "modulus",
                 pyramid: Literal["gaussian", "bilinear"] = "gaussian", scales: str = "scales") -> None:
        super().__init__()
        self.weight, self.frequency, self.edge, self.scales = weight, frequency, edge, scales
        self.distance, self.spectrum, self.pyramid = distance, spectrum, pyramid
        self.reads = ("restored", scales)

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted sum over all scales.

        Raises:
            OptionError: a smaller prediction has not the size of the pyramid's level.
        """
        predicted = [look_up(prediction, "restored", self, "the network's prediction"),
                     *prediction.get(self.scales, [])]
        target = batch["gt"]
        total = predicted[0].new_zeros(())
        for level, image in enumerate(predicted):
            if level and self.pyramid == "gaussian":
                target = half(target)
            elif level:
                target = F.interpolate(batch["gt"], scale_factor=1 / 2 ** level, mode="bilinear", align_corners=False)
            if image.shape != target.shape:
                raise OptionError(f"MultiScaleLoss: scale {level} is {tuple(image.shape)}, the pyramid of gt "
                                  f"{tuple(target.shape)}; train with crops that are multiples of "
                                  f"{2 ** (len(predicted) - 1)}")
            total = total + self._distance(image, target)
        return self.weight * total

    def _distance(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        difference = image - target
        total = {"charbonnier": charbonnier, "l1": mean_absolute, "mse": mean_squared}[self.distance](difference)
        if self.frequency:
            spectrum = torch.fft.fft2(difference.float())
            parts = spectrum.abs() if self.spectrum == "modulus" else torch.view_as_real(spectrum).abs()
            total = total + self.frequency * parts.mean()
        if self.edge:
            # The Laplacian is linear: that of the difference is the difference of the two.
            total = total + self.edge * charbonnier(laplacian(difference))
        return total


def mean_absolute(difference: torch.Tensor) -> torch.Tensor:
    """Return the mean of |d|."""
    return difference.abs().mean()


def mean_squared(difference: torch.Tensor) -> torch.Tensor:
    """Return the mean of d^2."""
    return difference.square().mean()


def charbonnier(difference: torch.Tensor) -> torch.Tensor:
    """Mean of sqrt(d^2 + 1e-6)."""
    return torch.sqrt(difference ** 2 + EPS ** 2).mean()


def half(image: torch.Tensor) -> torch.Tensor:
    """Return the next level of a Gaussian pyramid: 5 x 5 binomial blur, edges reflected, then means of 2 x 2."""
    return F.avg_pool2d(smooth(image, BINOMIAL, "reflect"), 2)


def laplacian(image: torch.Tensor) -> torch.Tensor:
    """X - G(4 every second sample of G(x), zeros between), edges replicated."""
    blurred = smooth(image, LAPLACE, "replicate")
    kept = torch.zeros_like(blurred)
    kept[..., ::2, ::2] = 4 * blurred[..., ::2, ::2]
    return image - smooth(kept, LAPLACE, "replicate")


def smooth(image: torch.Tensor, taps: Sequence[float], mode: str) -> torch.Tensor:
    """Filter along rows and columns with the same taps, each channel alone."""
    channels, radius = image.shape[1], len(taps) // 2
    line = torch.tensor(taps, dtype=image.dtype, device=image.device).repeat(channels, 1)
    padded = F.pad(image, (radius,) * 4, mode=mode)
    rows = F.conv2d(padded, line[:, None, :, None], groups=channels)
    return F.conv2d(rows, line[:, None, None, :], groups=channels)
