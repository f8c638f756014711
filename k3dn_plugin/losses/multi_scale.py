"""DeepRFT's loss: Charbonnier, Fourier and edge distances on three scales."""
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
    """Sum over the full, half and quarter scale of Charbonnier + 0.01 Fourier + 0.05 edge distances.

    Charbonnier: mean sqrt(d^2 + 1e-6). Fourier: mean modulus of the difference of the full, unnormalised
    spectra. Edge: Charbonnier between Laplacians. The targets of the smaller scales are a Gaussian pyramid
    of the sharp image (Mao et al., DeepRFT, training code's facts; the edge term is MPRNet's).

    Args:
        weight: factor on the whole.
        frequency, edge: factors of the two terms beside Charbonnier's.
        scales: key of the list of smaller predictions, from half size down; without it in the prediction
            the loss is on the full size alone.
    """

    def __init__(self, *, weight: float = 1.0, frequency: float = 0.01, edge: float = 0.05,
                 scales: str = "scales"):
        super().__init__()
        self.weight, self.frequency, self.edge, self.scales = weight, frequency, edge, scales

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """The weighted sum over all scales.

        Raises:
            OptionError: a smaller prediction has not the size of the pyramid's level.
        """
        predicted = [look_up(prediction, "restored", self, "the network's prediction"),
                     *prediction.get(self.scales, [])]
        target, total = batch["gt"], 0.0
        for level, image in enumerate(predicted):
            if level:
                target = half(target)
            if image.shape != target.shape:
                raise OptionError(f"MultiScaleLoss: scale {level} is {tuple(image.shape)}, the pyramid of gt "
                                  f"{tuple(target.shape)}; train with crops that are multiples of "
                                  f"{2 ** (len(predicted) - 1)}")
            total = total + self._distance(image, target)
        return self.weight * total

    def _distance(self, image, target):
        difference = image - target
        spectrum = torch.fft.fft2(difference.float()).abs().mean()
        # The Laplacian is linear: that of the difference is the difference of the two.
        return charbonnier(difference) + self.frequency * spectrum + self.edge * charbonnier(laplacian(difference))


def charbonnier(difference: torch.Tensor) -> torch.Tensor:
    """Mean of sqrt(d^2 + 1e-6)."""
    return torch.sqrt(difference ** 2 + EPS ** 2).mean()


def half(image: torch.Tensor) -> torch.Tensor:
    """The next level of a Gaussian pyramid: 5 x 5 binomial blur, edges reflected, then means of 2 x 2."""
    return F.avg_pool2d(smooth(image, BINOMIAL, "reflect"), 2)


def laplacian(image: torch.Tensor) -> torch.Tensor:
    """x - G(4 every second sample of G(x), zeros between), edges replicated."""
    blurred = smooth(image, LAPLACE, "replicate")
    kept = torch.zeros_like(blurred)
    kept[..., ::2, ::2] = 4 * blurred[..., ::2, ::2]
    return image - smooth(kept, LAPLACE, "replicate")


def smooth(image: torch.Tensor, taps, mode: str) -> torch.Tensor:
    """Filter along rows and columns with the same taps, each channel alone."""
    channels, radius = image.shape[1], len(taps) // 2
    line = torch.tensor(taps, dtype=image.dtype, device=image.device).repeat(channels, 1)
    padded = F.pad(image, (radius,) * 4, mode=mode)
    rows = F.conv2d(padded, line[:, None, :, None], groups=channels)
    return F.conv2d(rows, line[:, None, None, :], groups=channels)
