"""From distance to blur: the thin lens."""
import torch

from k3dn_plugin.errors import OptionError


def blur_radius(depth: torch.Tensor, *, focal_length: float, f_number: float, focus_distance: float,
                pixel_pitch: float) -> torch.Tensor:
    """Compute the signed blur radius in pixels, r = (A/2) (s'/s) (z - s)/z / p with A = F/N and s' = F s/(s - F).

    Args:
        depth: z, distance from the lens.
        focal_length, focus_distance, pixel_pitch: F, s and p, in the same unit as `depth`.
        f_number: N.

    Raises:
        OptionError: the focus lies within the focal length.
    """
    if focus_distance <= focal_length:
        raise OptionError(f"a lens of focal length {focal_length} cannot focus at {focus_distance}: the "
                          "distance must be larger, in the same unit")
    aperture = focal_length / f_number
    image_distance = focal_length * focus_distance / (focus_distance - focal_length)
    return aperture / 2 * image_distance / focus_distance * (depth - focus_distance) / depth / pixel_pitch


def blur_radius_from_disparity(disparity: torch.Tensor, *, in_focus: float, max_radius: float) -> torch.Tensor:
    """Compute the signed blur radius for a stereo disparity, which like it is linear in inverse depth.

    Args:
        disparity: of a stereo pair, larger when nearer.
        in_focus: the disparity that is sharp.
        max_radius: |r| of the most blurred value, in pixels.
    """
    offset = in_focus - disparity
    return offset * (max_radius / offset.abs().max().clamp(min=1e-6))
