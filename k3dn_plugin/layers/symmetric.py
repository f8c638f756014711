"""Horizontally symmetric kernels, from a spectrum and as a trainable set.

Under a horizontal flip the two views of a dual-pixel pair exchange their roles, so the kernel of their
sum is symmetric about its middle column (K3DN, the kernel set; not about the middle row).
"""
import torch


def mirror(half: torch.Tensor) -> torch.Tensor:
    """(..., k, (k+1)/2), the left half with the middle column -> (..., k, k), symmetric left to right."""
    return torch.cat([half, half[..., :-1].flip(-1)], -1)


def kernels_from_spectra(spectra: torch.Tensor, kernel_size: int, eps: float = 1e-8) -> torch.Tensor:
    """Symmetric kernels of unit L2 norm from one-sided spectra (`docs/networks/k3dn.md`, section 5.1).

    Only the left half of the inverse transform is read; its anchor is the centre tap, and the spectrum's
    phase refers to the top-left corner.

    Args:
        spectra: complex (C, F, F/2 + 1), the one-sided spectrum of a real F x F signal.
        kernel_size: odd k < F.

    Returns:
        (C, k, k), k[..., j] = k[..., k-1-j].
    """
    size = spectra.shape[-2]
    signal = torch.fft.irfft2(spectra, s=(size, size))
    kernel = mirror(signal[..., :kernel_size, :(kernel_size + 1) // 2])
    return kernel / torch.sqrt(kernel.square().sum((-2, -1), keepdim=True) + eps)


def inverse_spectra(spectra: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """Compute 1 / (S + eps), from which the reblurring kernels are read; 0 where S + eps is 0."""
    inverse = 1 / (spectra + eps)
    return torch.where(torch.isnan(inverse.real) | torch.isnan(inverse.imag),
                       torch.zeros_like(inverse), inverse)
