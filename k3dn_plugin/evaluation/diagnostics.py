"""What a mean PSNR hides: scores by local blur, and scores that need no truth.

| name             | columns                                    | meaning                                              |
|------------------|--------------------------------------------|------------------------------------------------------|
| `blur_bins`      | `psnr_in_focus`, `psnr_out_of_focus`,      | PSNR over the pixels of that local blur radius, of   |
|                  | `psnr_blur_0_1`, `psnr_blur_1_2`, ...      | the restored image; `input_...` for doing nothing    |
| `disparity_bins` | `gain_disparity_0_0.4`, `..._0.4_1.5`, ... | PSNR gained over the blurred input where left and    |
|                  |                                            | right view are that many pixels apart                |
|                  | `harm_in_focus`                            | PSNR lost where they are less than 0.4 apart, 0      |
|                  |                                            | where none is; lower is better                       |
| `preservation`   | `preservation_psnr`                        | a sharp pair (left = right = truth, or the restored  |
|                  |                                            | image where there is none) must come back unchanged  |
| `view_swap`      | `view_swap_psnr`                           | a mirrored pair with exchanged views must give the   |
|                  |                                            | mirrored result                                      |
| `reblur`         | `reblur_psnr`                              | the restored image, reblurred by the network,        |
|                  |                                            | against the captured center view                     |

All are in dB; higher is better but for harm. A value is None where it does not apply: no pixel of that blur in an
image, a network that cannot reblur, no truth. The first two need a truth (`needs_truth`).
"""
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional as F

from k3dn_plugin.data.disparity_check import TILE, tile_shifts
from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference.frames import FrameRestorer
from k3dn_plugin.inference.self_ensemble import flip_image, flipped
from k3dn_plugin.layers.filters import gaussian_blur
from k3dn_plugin.registry import DIAGNOSTICS

BIN_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, math.inf)   # blur radius in pixels
IN_FOCUS = 1.0
DISPARITY_EDGES = (0.0, 0.4, 1.5, 3.5, math.inf)  # pixels between the views
SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
WINDOW = 15

Scores = dict[str, float | None]
Found = tuple[Scores, Scores]


def diagnose(names: Sequence[str], run: FrameRestorer, sample: Mapping, prepared: Mapping, restored: torch.Tensor,
             blurred: torch.Tensor) -> Found:
    """Return the diagnostics of one image: `(scores, input_scores)` with None where one does not apply.

    Args:
        names: of `DIAGNOSTICS`.
        run: the `FrameRestorer`.
        sample, prepared: before and after the protocol's `prepare`. `prepared` may have `sharp`, the truth in the light
            that the restorer is fed with, and `pixel_maps`, names of the sample's maps that are in pixels (without it,
            all are taken to be).
        restored, blurred: the finished image and the center view as scored, (3, H, W).
    """
    scores, input_scores = {}, {}
    for name in names:
        of_restored, of_input = DIAGNOSTICS.get(name)(run, sample, prepared, restored, blurred)
        scores.update(of_restored)
        input_scores.update(of_input)
    return scores, input_scores


def check_names(names: Sequence[str]) -> None:
    """Raise `OptionError` for a diagnostic that does not exist."""
    unknown = [name for name in names if name not in DIAGNOSTICS]
    if unknown:
        raise OptionError(f"no diagnostic is called {unknown[0]!r}; there are {', '.join(DIAGNOSTICS.names())}")


def without_truth() -> list[str]:
    """Return the names of the diagnostics that need no truth."""
    return [name for name in DIAGNOSTICS.names() if not getattr(DIAGNOSTICS.get(name), "needs_truth", False)]


def needing_truth(function: Callable) -> Callable:
    """Mark a diagnostic that compares with the truth."""
    function.needs_truth = True
    return function


@DIAGNOSTICS.register_module()
@needing_truth
def blur_bins(run: FrameRestorer, sample: Mapping, prepared: Mapping, restored: torch.Tensor,
              blurred: torch.Tensor) -> Found:
    """Return the PSNR within and outside the area in focus, and by blur radius."""
    radius = blur_radius(sample, prepared, blurred)
    masks = {"in_focus": radius < IN_FOCUS, "out_of_focus": radius >= IN_FOCUS, **_masks(radius, BIN_EDGES, "blur")}
    scores, of_input = ({f"psnr_{name}": masked_psnr(image, prepared["gt"], mask) for name, mask in masks.items()}
                        for image in (restored, blurred))
    return scores, of_input


@DIAGNOSTICS.register_module()
@needing_truth
def disparity_bins(run: FrameRestorer, sample: Mapping, prepared: Mapping, restored: torch.Tensor,
                   blurred: torch.Tensor) -> Found:
    """Return the gain over the blurred input by the disparity between the views, and the harm done in focus."""
    size = tuple(prepared["gt"].shape[-2:])
    gains = {}
    for name, mask in _masks(pixel_disparity(sample, prepared, size), DISPARITY_EDGES, "disparity").items():
        score, of_input = (masked_psnr(image, prepared["gt"], mask) for image in (restored, blurred))
        gains[f"gain_{name}"] = None if score is None or of_input is None else score - of_input
    in_focus = next(iter(gains.values()))
    return {**gains, "harm_in_focus": None if in_focus is None else max(-in_focus, 0.0)}, {}


def _masks(values: torch.Tensor, edges: Sequence[float], name: str) -> dict[str, torch.Tensor]:
    """By name, where (H, W) values lie between two edges; NaN lies nowhere."""
    return {f"{name}_{low:g}_{high:g}".replace("_inf", "_up"): (values >= low) & (values < high)
            for low, high in zip(edges, edges[1:], strict=False)}


@DIAGNOSTICS.register_module()
def preservation(run: FrameRestorer, sample: Mapping, prepared: Mapping, restored: torch.Tensor,
                 blurred: torch.Tensor) -> Found:
    """Return the PSNR of what becomes of a pair that is sharp already."""
    sharp = prepared.get("sharp", prepared.get("gt"))
    if sharp is None:
        sharp = restored
    if sharp.shape[-2:] != prepared["lq"].shape[-2:]:
        return {"preservation_psnr": None}, {}  # the protocol feeds another size than it scores
    # A sharp pair has no blur anywhere, whatever map came with the blurred one.
    maps = {name: torch.zeros_like(found) for name, found in run.maps_of(sample).items()}
    frame = run(torch.cat([sharp, sharp])[None], sharp[None], maps)
    return {"preservation_psnr": _psnr(frame.image[0].clamp(0, 1), sharp)}, {}


@DIAGNOSTICS.register_module()
def view_swap(run: FrameRestorer, sample: Mapping, prepared: Mapping, restored: torch.Tensor,
              blurred: torch.Tensor) -> Found:
    """Return the PSNR between the result, and the result of the mirrored pair mirrored back."""
    lq, center = prepared["lq"][None], prepared["center"][None]
    maps = run.maps_of(sample)
    maps_mirrored = {name: flip_image(found, rows=False, columns=True) for name, found in maps.items()}
    mirrored = run(*flipped(lq, center, rows=False, columns=True), maps_mirrored).image
    once = run(lq, center, maps).image
    back = flip_image(mirrored, rows=False, columns=True)
    return {"view_swap_psnr": _psnr(back.clamp(0, 1)[0], once.clamp(0, 1)[0])}, {}


@DIAGNOSTICS.register_module()
def reblur(run: FrameRestorer, sample: Mapping, prepared: Mapping, restored: torch.Tensor,
           blurred: torch.Tensor) -> Found:
    """Return the PSNR of the reblurred result against the captured center view, on a central piece of the frame."""
    restorer = run.restorer
    reversed_deblur = getattr(restorer, "reblur", None)
    if reversed_deblur is None or not getattr(getattr(restorer, "deblur", None), "reversible", False):
        return {"reblur_psnr": None}, {}
    # The reversed network is not tiled, so a piece that fits any memory stands for the frame.
    lq, center = (central(prepared[key], 512)[None].to(run.device) for key in ("lq", "center"))
    with torch.no_grad():
        outputs = restorer.training_outputs({"lq": lq, "center": center, "gt": center})
        again = reversed_deblur(outputs["restored"].clamp(0, 1), outputs["disparity"])
    return {"reblur_psnr": _psnr(again[0].float().clamp(0, 1).cpu(), center[0].cpu())}, {}


def blur_radius(sample: Mapping, prepared: Mapping, blurred: torch.Tensor) -> torch.Tensor:
    """Return (H, W) local blur radius in pixels: |defocus| where the data have it in pixels, else estimated.

    The estimate is twice the sigma of the Gaussian that, applied to the truth, comes nearest to the blurred
    image in a window of 15 pixels: a disc of radius r has that second moment.
    """
    gt = prepared["gt"]
    defocus = _pixel_map("defocus", sample, prepared, tuple(gt.shape[-2:]))
    if defocus is not None:
        return defocus.abs()
    errors = torch.stack([local_error(gaussian_blur(gt, sigma), blurred) for sigma in SIGMAS])
    return 2 * torch.tensor(SIGMAS)[errors.argmin(0).cpu()]


def pixel_disparity(sample: Mapping, prepared: Mapping, size: tuple[int, int]) -> torch.Tensor:
    """Return (H, W) magnitude of the disparity between left and right view in pixels.

    The stored one where the data have it in pixels, else measured by phase correlation in tiles; NaN where it cannot be
    measured.
    """
    stored = _pixel_map("disparity", sample, prepared, size)
    if stored is not None:
        return stored.abs()
    lq = prepared["lq"]
    left, right = (view.permute(1, 2, 0).cpu().numpy() for view in lq.split(3))
    found, side = torch.full(tuple(lq.shape[-2:]), math.nan), min(TILE, *lq.shape[-2:])
    for row, column, shift, _ in tile_shifts(left, right):
        found[row:row + side, column:column + side] = abs(shift)
    if tuple(found.shape) == size:
        return found
    # A protocol may feed another size than it scores; the shift scales with the columns.
    return F.interpolate(found[None, None], size=size, mode="nearest")[0, 0] * size[1] / found.shape[1]


def _pixel_map(name: str, sample: Mapping, prepared: Mapping, size: tuple[int, int]) -> torch.Tensor | None:
    """The sample's map (H, W) where it is in pixels and of the scored size."""
    found = sample.get(name)
    in_pixels = name in prepared.get("pixel_maps", (name,))
    return found[0] if found is not None and in_pixels and tuple(found.shape[-2:]) == size else None


def local_error(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(H, W) squared difference, averaged over channels and a window."""
    error = (one - other).square().mean(0)[None, None]
    return F.avg_pool2d(error, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)[0, 0]


def masked_psnr(restored: torch.Tensor, gt: torch.Tensor, mask: torch.Tensor) -> float | None:
    """PSNR over the pixels of `mask` (H, W), peak 1; None where there are none."""
    if not mask.any():
        return None
    mse = float((restored - gt).double().square().mean(0)[mask].mean())
    return 100.0 if mse == 0 else 10 * math.log10(1 / mse)


def central(image: torch.Tensor, side: int) -> torch.Tensor:
    """(C, H, W) cut to at most `side` rows and columns around the center."""
    starts = [max(n - side, 0) // 2 for n in image.shape[-2:]]
    rows, columns = (slice(start, start + side) for start in starts)
    return image[:, rows, columns]


def _psnr(one: torch.Tensor, other: torch.Tensor) -> float | None:
    return masked_psnr(one, other, torch.ones(one.shape[-2:], dtype=torch.bool))
