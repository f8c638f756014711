"""A small network that a reblur module brings along when the restorer says nothing of depth."""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.residual import SLOPE


class BlurEstimator(nn.Module):
    """A signed blur size for each pixel, from the two views.

    Args:
        limit: largest magnitude, in pixels.
        width: channels.
    """

    def __init__(self, limit: float, width: int = 32):
        super().__init__()
        self.limit = limit
        self.body = nn.Sequential(
            nn.Conv2d(6, width, 5, stride=2, padding=2), nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2), nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2), nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 2 * width, 3, padding=4, dilation=4), nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 1, 3, padding=1))

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) in [0, 1], left before right -> (B, 1, H, W) in (-limit, limit)."""
        size = self.body(views - 0.5)
        size = F.interpolate(size, size=views.shape[-2:], mode="bilinear", align_corners=False)
        return self.limit * torch.tanh(size)


def predicted_map(prediction: dict, key: str, module: str) -> torch.Tensor:
    """Return a map (B, 1 or 3, H, W) of the prediction.

    Raises:
        OptionError: the restorer does not predict it.
    """
    value = prediction.get(key)
    if not torch.is_tensor(value) or value.ndim != 4:
        maps = [k for k, v in prediction.items() if torch.is_tensor(v) and v.ndim == 4]
        raise OptionError(f"{module}.predicted: the restorer predicts no map {key!r}; it predicts "
                          f"{', '.join(maps)}. Leave `predicted` out to have one estimated from the views")
    return value
