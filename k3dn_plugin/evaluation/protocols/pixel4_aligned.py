"""Scores on the Pixel 4 pairs that do not depend on the viewpoint of a restored image.

The truth of Xin et al. (ICCV 2021) shows the scene as the *left* view sees it, while a restorer of dual-pixel pairs
gives the view of the whole aperture, half a disparity further right: up to 3 pixels in these scenes.
A perfect image of that view would score below its blurred input on some scenes of `pixel4_encoded`. Here every tile,
of the restored image and of the blurred input alike, is moved along the columns to where it fits the truth best.
"""
import torch
import torch.nn.functional as F

from k3dn_plugin.evaluation.protocols.pixel4 import Pixel4Encoded
from k3dn_plugin.registry import PROTOCOLS

TILE = 96     # pixels; about one surface, so that one shift serves it
REACH = 4.0   # pixels, more than half of the disparity of any scene
STEP = 0.25


@PROTOCOLS.register_module(name="pixel4_aligned")
class Pixel4Aligned(Pixel4Encoded):
    """As `pixel4_encoded`, after each tile was moved along the columns to where it fits the truth best."""

    name = "pixel4_aligned"
    source = "ours, on the data of Xin et al. (ICCV 2021); pixel4_encoded with tiles moved to the truth's viewpoint"
    output = (f"clamped to [0, 1], float, not quantised; each {TILE} x {TILE} tile moved along the columns by the "
              f"multiple of {STEP} px, up to {REACH:g} px, that fits the truth best")

    def placed(self, restored: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        """Return the encoded image with its tiles moved to where they fit the encoded truth best."""
        return moved_to(restored, gt)


def moved_to(image: torch.Tensor, reference: torch.Tensor, *, tile: int = TILE, reach: float = REACH,
             step: float = STEP) -> torch.Tensor:
    """Return `image` (C, H, W) with each tile moved along the columns to where it is nearest to `reference`.

    Args:
        image, reference: of one shape, in [0, 1].
        tile: side of a tile in pixels; those at the right and bottom are smaller.
        reach, step: largest move, and the distance between two that are tried, in pixels.
    """
    height, width = image.shape[-2:]
    steps = round(reach / step)
    # No move comes first, and is kept where none is better.
    moves = sorted((i * step for i in range(-steps, steps + 1)), key=abs)
    best, least = image, None
    for move in moves:
        candidate = _shifted(image, move)
        error = (candidate - reference).square().mean(0)
        error = F.avg_pool2d(F.pad(error[None], (0, -width % tile, 0, -height % tile)), tile)[0]
        if least is None:
            least = error
            continue
        better = error < least
        least = torch.where(better, error, least)
        mask = better.repeat_interleave(tile, 0).repeat_interleave(tile, 1)[:height, :width]
        best = torch.where(mask, candidate, best)
    return best


def _shifted(image: torch.Tensor, move: float) -> torch.Tensor:
    """Return the image moved right by `move` pixels (bicubic), its border repeated."""
    if not move:
        return image
    height, width = image.shape[-2:]
    rows = ((torch.arange(height, device=image.device) + 0.5) * 2 / height - 1).to(image.dtype)
    columns = ((torch.arange(width, device=image.device) + 0.5 - move) * 2 / width - 1).to(image.dtype)
    grid = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)
    moved = F.grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return moved[0].clamp(0, 1)
