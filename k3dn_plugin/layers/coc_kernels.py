"""Blur by half-aperture kernels of a per-pixel signed radius (circle of confusion).

BaMBNet (Liang et al., 2022), section III: the left view blurred with the right view's kernel is the right
view blurred with the left view's. That needs no label, so it trains the radius; blurring the sharp image
with the two kernels gives the two views.
"""

import torch
import torch.nn.functional as F

from k3dn_plugin.layers.constants import made_once

MAX_RADIUS = 24


def ramp_disc(radius: int) -> torch.Tensor:
    """Return (2r + 1, 2r + 1) float64, of sum 1: a disc times a ramp that grows to the right, up to 2r.

    The last two columns share the largest weight, as published. Radius 0 is the identity.
    """
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    disc = (line[:, None] ** 2 + line ** 2 <= radius ** 2).double()
    ramp = torch.arange(1, 2 * radius + 2, dtype=torch.float64).clamp(max=max(2 * radius, 1))
    kernel = disc * ramp
    return kernel / kernel.sum()


@made_once(256)
def _ramp_disc_on(radius: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The kernel of a radius, made once on the CPU for each device."""
    return ramp_disc(radius).to(device, dtype)


def blur_by_radius(images: torch.Tensor, radius: torch.Tensor, *, rising: bool,
                   max_radius: int = MAX_RADIUS) -> torch.Tensor:
    """Filter every pixel with the kernel of its own radius, interpolated linearly between whole radii.

    Cross-correlation with zeros outside. A radius beyond `max_radius` fades to nothing over one pixel.
    Differentiable in both arguments.

    Args:
        images: (B, C, H, W).
        radius: (B, C, H, W) or (B, 1, H, W), signed, in pixels.
        rising: where the radius is positive, use `ramp_disc` (True) or its mirror image (False); the other
            one where it is negative.

    Returns:
        (B, C, H, W).
    """
    channels = images.shape[1]
    out = torch.zeros_like(images)
    for r in range(max_radius + 1):
        # Both hats coincide at radius 0, where the kernel is its own mirror image: each counts for half.
        hats = [_hat(radius - r), _hat(radius + r)]
        # Elsewhere the question would wait for the device, which costs more than the answer saves.
        if images.device.type == "cpu" and not any(bool((hat > 0).any()) for hat in hats):
            continue
        kernel = _ramp_disc_on(r, images.device, images.dtype)
        pair = torch.stack([kernel, kernel.flip(-1)] if rising else [kernel.flip(-1), kernel])
        weight = pair.repeat(channels, 1, 1)[:, None]
        both = F.conv2d(images, weight, padding=r, groups=channels).unflatten(1, (channels, 2))
        share = 0.5 if r == 0 else 1.0
        out = out + share * (hats[0] * both[:, :, 0] + hats[1] * both[:, :, 1])
    return out


def _hat(distance: torch.Tensor) -> torch.Tensor:
    """1 at 0, falling linearly to 0 at -1 and 1."""
    return (1 - distance.abs()).clamp(min=0)


def cross_blur(left: torch.Tensor, right: torch.Tensor, radius: torch.Tensor, *,
               max_radius: int = MAX_RADIUS) -> tuple[torch.Tensor, torch.Tensor]:
    """Each view blurred with the kernel of the other one; equal where the radius is right.

    With a positive radius the sharp image convolved with `ramp_disc` is the left view, and convolved with
    its mirror image the right one.

    Args:
        left, right: (B, 3, H, W).
        radius: (B, 3, H, W), one map for each color, or (B, 1, H, W).
    """
    return (blur_by_radius(left, radius, rising=True, max_radius=max_radius),
            blur_by_radius(right, radius, rising=False, max_radius=max_radius))


def gaussian_smooth(images: torch.Tensor, *, size: int = 3, sigma: float = 1.5) -> torch.Tensor:
    """Gaussian filter of `size` x `size` taps, edges reflected (without repeating the edge)."""
    radius = size // 2
    kernel = _gaussian_on(size, sigma, images.device, images.dtype)
    channels = images.shape[1]
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.repeat(channels, 1, 1, 1), groups=channels)


@made_once(64)
def _gaussian_on(size: int, sigma: float, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The taps of a Gaussian filter, of sum 1, made once on the CPU for each device."""
    line = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float64)
    taps = torch.exp(-line ** 2 / (2 * sigma ** 2))
    kernel = torch.outer(taps, taps)
    return (kernel / kernel.sum()).to(device, dtype)
