"""Residual blocks with a branch in the Fourier domain, and the over-parameterised convolutions they are made of.

Mao, Liu, Shen, Li, Wang: Deep Residual Fourier Transformation (arXiv 2111.11745v1, 2021), section 3.2, and
Cao et al.: DO-Conv. The branch sees the whole map that it is given.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.residual import at_least_float32, without_autocast


class DOConv(nn.Module):
    """Depthwise over-parameterised convolution without bias: the kernel is a product of two tensors.

    K[o, i, m] = sum_s (D[i, m, s] + D_diag[i, m, s]) W[o, i, s], m and s numbering the k x k taps. D
    starts at zero and D_diag, which is not trained, at the identity, so that K starts as W. A 1x1
    convolution has W alone.

    Args:
        kernel_size: k; the padding keeps the size, but for the stride.
        relu: whether a ReLU follows.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1,
                 relu: bool = True):
        super().__init__()
        self.kernel_size = k = kernel_size
        self.stride = stride
        self.relu = relu
        self.W = nn.Parameter(torch.empty(out_channels, in_channels, k * k))
        nn.init.kaiming_uniform_(self.W, a=math.sqrt(5))
        if k > 1:
            self.D = nn.Parameter(torch.zeros(in_channels, k * k, k * k))
            self.D_diag: torch.Tensor
            self.register_buffer("D_diag", torch.eye(k * k).repeat(in_channels, 1, 1))

    def kernel(self) -> torch.Tensor:
        """Return the kernel that is convolved, (out, in, k, k)."""
        taps = self.W
        if self.kernel_size > 1:
            taps = torch.einsum("ims,ois->oim", self.D + self.D_diag, self.W)
        return taps.unflatten(-1, (self.kernel_size, self.kernel_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.conv2d(x, self.kernel(), stride=self.stride, padding=self.kernel_size // 2)
        return F.relu(out) if self.relu else out


class FourierBlock(nn.Module):
    """x + two convolutions of x + two 1x1 convolutions of its spectrum (paper, section 3.2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Sequential(DOConv(channels, channels), DOConv(channels, channels, relu=False))
        self.spectral = nn.Sequential(DOConv(2 * channels, 2 * channels, 1),
                                      DOConv(2 * channels, 2 * channels, 1, relu=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spatial(x) + x + self.fourier(x)

    def fourier(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape, by way of real and imaginary parts stacked as 2C channels."""
        # Half precision has no FFT for these sizes, and a spectrum's sums would overflow it.
        with without_autocast(x):
            spectrum = torch.fft.rfft2(at_least_float32(x))
            real, imaginary = self.spectral(torch.cat([spectrum.real, spectrum.imag], 1)).chunk(2, 1)
            return real_inverse(torch.complex(real, imaginary), x.shape[-1]).to(x.dtype)


def real_inverse(spectrum: torch.Tensor, width: int) -> torch.Tensor:
    """Inverse of `rfft2` to (..., H, width), for spectra that need not be those of a real signal.

    Complex inverse along the columns, then real inverse along the rows, where the imaginary parts of
    frequency 0 and of the highest one of an even width do not count. Taken out by hand, since backends may
    differ in what they make of them.
    """
    rows = torch.fft.ifft(spectrum, dim=-2)
    counts = torch.ones(rows.shape[-1], dtype=rows.real.dtype, device=rows.device)
    counts[0] = 0
    if width % 2 == 0:
        counts[-1] = 0
    return torch.fft.irfft(torch.complex(rows.real, rows.imag * counts), n=width, dim=-1)
