"""Non-blind deconvolution with a hyper-Laplacian prior, for a Gaussian blur whose width varies.

Krishnan and Fergus, "Fast Image Deconvolution using Hyper-Laplacian Priors" (NIPS 2009), applied to each of
a few blur levels and put together pixel by pixel, as DMENet (Lee et al., CVPR 2019) restores images from
its defocus maps. Everything periodic; edges are tapered first, as MATLAB's `edgetaper` does.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.filters import transfer_function
from k3dn_plugin.layers.residual import at_least_float32, without_autocast

TABLE_RANGE = 10
TABLE_STEPS = 10_000  # per unit
NEWTON_STEPS = 4


def quantize(sigma: torch.Tensor, levels: int) -> torch.Tensor:
    """Each value replaced by the left edge of its bin; edges are quantiles of the distinct values.

    Args:
        sigma: (H, W).
        levels: L quantiles, at k / (L + 1); with the extremes they bound L + 1 bins.
    """
    values = torch.unique(sigma)
    count = len(values)
    at = torch.arange(1, levels + 1, dtype=torch.float64, device=sigma.device) / (levels + 1) * count - 0.5
    at = at.clamp(0, count - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=count - 1)
    share = (at - low).to(values.dtype)
    quantiles = values[low] + share * (values[high] - values[low])
    edges = torch.cat([values[:1], quantiles])
    return edges[torch.searchsorted(edges, sigma.contiguous(), right=True) - 1]


def gaussian(sigma: float, support: int) -> torch.Tensor | None:
    """Return (2r + 1, 2r + 1) float64 of sum 1, cut where it falls below 2^-52 of its peak and at `support`;
    None where nothing but the peak is left.
    """
    # Below 0.1 not even the neighbors are left, and the square of a tiny sigma would underflow.
    if sigma < 0.1:
        return None
    half = support // 2
    line = torch.arange(-half, half + 1, dtype=torch.float64)
    kernel = torch.exp(-(line[:, None] ** 2 + line ** 2) / (2 * sigma ** 2))
    kernel = torch.where(kernel < 2.0 ** -52, torch.zeros_like(kernel), kernel)
    radius = int((kernel[half] > 0).sum()) // 2
    if radius == 0:
        return None
    kernel = kernel / kernel.sum()
    return kernel[half - radius:half + radius + 1, half - radius:half + radius + 1]


def edge_taper(image: torch.Tensor, kernel: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """Blend the (C, m, n) image into its periodic blur towards the edges, so that opposite edges meet.

    The weight of the image is 1 minus the kernel's autocorrelation along each axis.
    """
    weights = []
    for axis, length in zip((1, 0), image.shape[-2:]):
        spectrum = torch.fft.rfft(kernel.sum(axis), n=length - 1)
        correlation = torch.fft.irfft(spectrum.abs() ** 2, n=length - 1)
        correlation = torch.cat([correlation, correlation[:1]])
        weights.append(1 - correlation / correlation.max())
    weight = weights[0][:, None] * weights[1]
    blurred = torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=image.shape[-2:])
    low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
    return (weight * image + (1 - weight) * blurred).clamp(low, high)


def shrinkage_table(alpha: float, beta: float) -> torch.Tensor:
    """argmin_w |w|^alpha + beta / 2 (w - v)^2 for v = -10, -9.9999, ..., 10, by four Newton steps from v.

    Near 0 four steps do not converge, and the last test, whether w beats 0, makes the function jump. The
    published results depend on the table, interpolated, so it is kept as it is.
    """
    v = np.arange(-TABLE_RANGE * TABLE_STEPS, TABLE_RANGE * TABLE_STEPS + 1) * (1 / TABLE_STEPS)
    w = v.copy()
    with np.errstate(all="ignore"):
        for _ in range(NEWTON_STEPS):
            size = np.abs(w)
            slope = alpha * np.sign(w) * size ** (alpha - 1) + beta * (w - v)
            curve = alpha * (alpha - 1) * size ** (alpha - 2) + beta
            w = np.nan_to_num(w - slope / curve, nan=0.0)
            # One step from 0.5625 (alpha 1.5, beta 1) is 0 exactly, and stays; rounding must not lose that.
            w[np.abs(w) < 1e-14] = 0.0
        better = np.abs(w) ** alpha + beta / 2 * (w - v) ** 2 < beta / 2 * v ** 2
    return torch.from_numpy(np.where(better, w, 0.0))


def shrink(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return `table`, of `shrinkage_table`, interpolated linearly at `values`; clamped to its range."""
    last = TABLE_RANGE * TABLE_STEPS
    place = (values * TABLE_STEPS).clamp(-last, last - 1e-3)
    low = place.floor()
    index = (low.long() + last).clamp(max=2 * last - 1)
    start = table[index]
    return start + (place - low) * (table[index + 1] - start)


class NonBlindDeconvolution(nn.Module):
    """Removes a Gaussian blur of known, varying width. No parameters.

    Args:
        fidelity: lambda, the weight of the data against the prior (16.8 for DPDD).
        alpha: exponent of the prior on derivatives.
        support: odd side of the largest kernel.
        taper_passes: how often edges are tapered.
        beta_limit: half-quadratic splitting runs with beta = 1, 2.83, 8, ... below this.
    """

    def __init__(self, *, fidelity: float = 16.8, alpha: float = 1.5, support: int = 101,
                 taper_passes: int = 4, beta_limit: float = 256.0):
        super().__init__()
        if fidelity <= 0 or not 1 < alpha < 2 or support < 3 or support % 2 == 0 or taper_passes < 0:
            raise OptionError("deconvolution: expected a positive fidelity, alpha between 1 and 2, an odd "
                              f"support of at least 3 and taper_passes of 0 or more; found {fidelity}, "
                              f"{alpha}, {support}, {taper_passes}")
        self.fidelity, self.support, self.taper_passes = fidelity, support, taper_passes
        self.betas = []
        beta = 1.0
        while beta < beta_limit:
            self.betas.append(beta)
            beta *= 2 * math.sqrt(2)
        self._tables = [shrinkage_table(alpha, beta) for beta in self.betas]

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """(3, H, W) in [0, 1] and (H, W), the blur's width in pixels, of few distinct values -> (3, H, W)
        in [0, 1].
        """
        return self.with_slope(image, sigma)[0]

    def with_slope(self, image: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the restored image, and how it changes with sigma: the difference to the next level's restoration
        over that of the levels (0 at the last level).

        Raises:
            SizeError: `sigma` is not of the image's size.
        """
        if image.ndim != 3 or sigma.shape != image.shape[-2:]:
            raise SizeError(f"deconvolution: expected image (3, H, W) and sigma (H, W), found "
                            f"{tuple(image.shape)} and {tuple(sigma.shape)}")
        with without_autocast(image):
            image = at_least_float32(image)
            restored, slope = torch.empty_like(image), torch.zeros_like(image)
            before = None
            for level in torch.unique(sigma).tolist():
                here = sigma == level
                sharp = self.deconvolve(image, level).clamp(0, 1)
                restored = torch.where(here, sharp, restored)
                if before is not None:
                    where, earlier, value = before
                    slope = torch.where(where, (sharp - earlier) / (level - value), slope)
                before = here, sharp, level
            return restored, slope

    def deconvolve(self, image: torch.Tensor, sigma: float) -> torch.Tensor:
        """(C, H, W) -> (C, H, W), not clipped, as if the blur were the same everywhere."""
        kernel = gaussian(sigma, self.support)
        if kernel is None:
            return image
        height, width = image.shape[-2:]
        radius = kernel.shape[-1] // 2
        # Tapering needs twice the kernel's side; published code stops at images that are smaller.
        extra = [max(radius, -(-(2 * kernel.shape[-1] - side) // 2)) for side in (height, width)]
        kernel = kernel.to(image)
        padded = F.pad(image[None], (extra[1], extra[1], extra[0], extra[0]), mode="replicate")[0]
        transfer = transfer_function(kernel, padded.shape[-2:])
        for _ in range(self.taper_passes):
            padded = edge_taper(padded, kernel, transfer)
        sharp = self.split(padded, transfer)
        return sharp[:, extra[0]:extra[0] + height, extra[1]:extra[1] + width]

    def split(self, image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
        """Half-quadratic splitting: shrink the derivatives, solve for the image in the Fourier domain."""
        size = image.shape[-2:]
        rows, columns = (2 - 2 * torch.cos(2 * math.pi * torch.arange(n, dtype=image.dtype,
                                                                      device=image.device) / n) for n in size)
        gradient = rows[:, None] + columns[:size[1] // 2 + 1]
        data = transfer.conj() * torch.fft.rfft2(image)
        power = transfer.abs() ** 2
        sharp = image
        for beta, table in zip(self.betas, self._tables):
            table = table.to(image)
            across = shrink(sharp.roll(-1, -1) - sharp, table)
            down = shrink(sharp.roll(-1, -2) - sharp, table)
            target = across.roll(1, -1) - across + down.roll(1, -2) - down
            ratio = beta / self.fidelity
            sharp = torch.fft.irfft2((data + ratio * torch.fft.rfft2(target)) / (power + ratio * gradient),
                                     s=size)
        return sharp
