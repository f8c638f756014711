"""The sRGB curve: light adds up in linear values, files hold curved ones (IEC 61966-2-1)."""
import torch


def srgb_to_linear(image: torch.Tensor) -> torch.Tensor:
    """Compute the linear light in [0, 1] of sRGB values in [0, 1]."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(image: torch.Tensor) -> torch.Tensor:
    """Compute the sRGB values of linear light, clipped to [0, 1]."""
    image = image.clamp(0, 1)
    curved = 1.055 * image.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(image <= 0.0031308, image * 12.92, curved)
