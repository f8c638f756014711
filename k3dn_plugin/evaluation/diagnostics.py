"""What a mean PSNR hides: scores by local blur, and scores that need no truth.

| name           | columns                               | meaning                                         |
|----------------|---------------------------------------|-------------------------------------------------|
| `blur_bins`    | `psnr_in_focus`, `psnr_out_of_focus`, | PSNR over the pixels of that local blur, of the |
|                | `psnr_blur_0_1`, `psnr_blur_1_2`, ... | restored image; `input_...` for doing nothing   |
| `preservation` | `preservation_psnr`                   | a sharp pair (left = right = truth) must come   |
|                |                                       | back unchanged                                  |
| `view_swap`    | `view_swap_psnr`                      | a mirrored pair with exchanged views must give  |
|                |                                       | the mirrored result                             |
| `reblur`       | `reblur_psnr`                         | the restored image, reblurred by the network,   |
|                |                                       | against the captured center view                |

All are in dB, higher is better. A value is None where it does not apply: no pixel of that blur in an image,
or a network that cannot reblur.
"""
import math

import torch
from torch.nn import functional as F

from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference.self_ensemble import flip_image, flipped
from k3dn_plugin.layers.filters import gaussian_blur
from k3dn_plugin.registry import DIAGNOSTICS

BIN_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, math.inf)   # blur radius in pixels
IN_FOCUS = 1.0
SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
WINDOW = 15


def diagnose(names, run, sample, prepared, restored, blurred) -> tuple[dict, dict]:
    """Diagnostics of one image: `(scores, input_scores)` with None where one does not apply.

    Args:
        names: of `DIAGNOSTICS`.
        run: the `FrameRestorer`.
        sample, prepared: before and after the protocol's `prepare`.
        restored, blurred: the finished image and the center view as scored, (3, H, W).
    """
    scores, input_scores = {}, {}
    for name in names:
        of_restored, of_input = DIAGNOSTICS.get(name)(run, sample, prepared, restored, blurred)
        scores.update(of_restored)
        input_scores.update(of_input)
    return scores, input_scores


def check_names(names):
    """Raise `OptionError` for a diagnostic that does not exist."""
    unknown = [name for name in names if name not in DIAGNOSTICS]
    if unknown:
        raise OptionError(f"no diagnostic is called {unknown[0]!r}; there are {', '.join(DIAGNOSTICS.names())}")


@DIAGNOSTICS.register_module()
def blur_bins(run, sample, prepared, restored, blurred):
    """PSNR within and outside the area in focus, and by blur radius."""
    radius = blur_radius(sample, prepared, blurred)
    masks = {"in_focus": radius < IN_FOCUS, "out_of_focus": radius >= IN_FOCUS}
    for low, high in zip(BIN_EDGES, BIN_EDGES[1:]):
        masks[f"blur_{low:g}_{high:g}".replace("_inf", "_up")] = (radius >= low) & (radius < high)
    return tuple({f"psnr_{name}": masked_psnr(image, prepared["gt"], mask) for name, mask in masks.items()}
                 for image in (restored, blurred))


@DIAGNOSTICS.register_module()
def preservation(run, sample, prepared, restored, blurred):
    """PSNR of what becomes of a pair that is sharp already."""
    gt = prepared["gt"]
    if gt.shape[-2:] != prepared["lq"].shape[-2:]:
        return {"preservation_psnr": None}, {}  # the protocol feeds another size than it scores
    # A sharp pair has no blur anywhere, whatever map came with the blurred one.
    maps = {name: torch.zeros_like(found) for name, found in run.maps_of(sample).items()}
    frame = run(torch.cat([gt, gt])[None], gt[None], maps)
    return {"preservation_psnr": _psnr(frame.image[0].clamp(0, 1), gt)}, {}


@DIAGNOSTICS.register_module()
def view_swap(run, sample, prepared, restored, blurred):
    """PSNR between the result, and the result of the mirrored pair mirrored back."""
    lq, center = prepared["lq"][None], prepared["center"][None]
    maps = run.maps_of(sample)
    maps_mirrored = {name: flip_image(found, rows=False, columns=True) for name, found in maps.items()}
    mirrored = run(*flipped(lq, center, rows=False, columns=True), maps_mirrored).image
    once = run(lq, center, maps).image
    back = flip_image(mirrored, rows=False, columns=True)
    return {"view_swap_psnr": _psnr(back.clamp(0, 1)[0], once.clamp(0, 1)[0])}, {}


@DIAGNOSTICS.register_module()
def reblur(run, sample, prepared, restored, blurred):
    """PSNR of the reblurred result against the captured center view, on a central piece of the frame."""
    restorer = run.restorer
    if not hasattr(restorer, "reblur") or not getattr(getattr(restorer, "deblur", None), "reversible", False):
        return {"reblur_psnr": None}, {}
    # The reversed network is not tiled, so a piece that fits any memory stands for the frame.
    lq, center = (central(prepared[key], 512)[None].to(run.device) for key in ("lq", "center"))
    with torch.no_grad():
        outputs = restorer.training_outputs({"lq": lq, "center": center, "gt": center})
        again = restorer.reblur(outputs["restored"].clamp(0, 1), outputs["disparity"])
    return {"reblur_psnr": _psnr(again[0].float().clamp(0, 1).cpu(), center[0].cpu())}, {}


def blur_radius(sample, prepared, blurred):
    """(H, W) local blur radius in pixels: |defocus| where the data have it, else estimated.

    The estimate is twice the sigma of the Gaussian that, applied to the truth, comes nearest to the blurred
    image in a window of 15 pixels: a disc of radius r has that second moment.
    """
    gt = prepared["gt"]
    defocus = sample.get("defocus")
    if defocus is not None and defocus.shape[-2:] == gt.shape[-2:]:
        return defocus[0].abs()
    errors = torch.stack([local_error(gaussian_blur(gt, sigma), blurred) for sigma in SIGMAS])
    return 2 * torch.tensor(SIGMAS)[errors.argmin(0).cpu()]


def local_error(one, other):
    """(H, W) squared difference, averaged over channels and a window."""
    error = (one - other).square().mean(0)[None, None]
    return F.avg_pool2d(error, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)[0, 0]


def masked_psnr(restored, gt, mask):
    """PSNR over the pixels of `mask` (H, W), peak 1; None where there are none."""
    if not mask.any():
        return None
    mse = float((restored - gt).double().square().mean(0)[mask].mean())
    return 100.0 if mse == 0 else 10 * math.log10(1 / mse)


def central(image, side):
    """(C, H, W) cut to at most `side` rows and columns around the center."""
    starts = [max(n - side, 0) // 2 for n in image.shape[-2:]]
    rows, columns = (slice(start, start + side) for start in starts)
    return image[:, rows, columns]


def _psnr(one, other):
    return masked_psnr(one, other, torch.ones(one.shape[-2:], dtype=torch.bool))
