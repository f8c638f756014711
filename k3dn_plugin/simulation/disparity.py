"""The disparity that was rendered, pixel by pixel: the distance between the kernels' centroids at each radius."""
import numpy as np
import torch

from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.psf import PsfSettings, centroid_gap
from k3dn_plugin.simulation.spread import FAST_STEP, STEP, field_nodes, radius_levels

FEW = 16  # radii in a picture that are looked up one by one


def disparity_map(radius: torch.Tensor, psf: PsfSettings, *, window: FieldWindow | None = None,
                  fast: bool = False) -> torch.Tensor:
    """Compute the (H, W) disparity in pixels of (H, W) signed blur radii, for the kernels that render them.

    Between two levels of radius a pixel's light is shared out as the renderer shares it, so its centroid lies
    between theirs. In proportion to the radius where the family scales with it (all of `psf/families.py`).

    Args:
        radius: of what is seen at each pixel.
        psf: the lens and sensor.
        window: of the picture in the frame; the picture is the frame if None.
        fast: whether the fast renderer's levels and places of the field are meant.
    """
    size = (radius.shape[0], radius.shape[1])
    values, places = np.unique(np.round(radius.cpu().numpy().astype(np.float64), 4), return_inverse=True)
    step = FAST_STEP if fast else STEP
    levels = values if len(values) <= FEW else np.array(radius_levels(radius, step))
    disparity = torch.zeros(size)
    for weight, lens in field_nodes(psf, window or FieldWindow(size), size, [0, 0], coarse=fast):
        gaps = np.interp(values, levels, [centroid_gap(float(level), lens) for level in levels])
        found = torch.from_numpy(gaps[places].reshape(size)).float()
        disparity += found if weight is None else found * weight.float()
    return disparity.to(radius.device)
