"""The disparity or defocus map that a restorer predicts on its way, to be scored against a known one.

Networks predict such maps on different scales and with unknown offset, which the map metrics fit (`map_metrics.py`).
"""
from collections.abc import Mapping, Sequence

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference.frames import FrameRestorer
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import MAP_METRICS

# Outputs in training that are maps, the best first; `coc` has a channel a color.
PREDICTED = ("disparity_map", "disparity", "blur_disparity", "defocus", "coc", "blur_map")
TRUTHS = ("disparity", "defocus", "depth")
UNSIGNED = ("defocus", "blur_map")   # predictions of how much blur there is, not on which side of focus
SIDE = 768                           # of the pieces of a frame that are predicted at a time


def check_map_metrics(names: Sequence[str]) -> None:
    """Raise `RegistryError` for a map metric that does not exist."""
    for name in names:
        MAP_METRICS.get(name)


def map_scores(names: Sequence[str], run: FrameRestorer, sample: Mapping, prepared: Mapping) -> dict[str, float | None]:
    """Return `map_<metric>` for the map that the restorer predicts against the sample's, None where there is no truth.

    Args:
        names: of `MAP_METRICS`.
        run: with the restorer, in evaluation mode.
        sample: with a map of `TRUTHS`; the first of them is taken.
        prepared: the pair as the restorer is fed with it.

    Raises:
        OptionError: the restorer predicts no map.
    """
    if not names:
        return {}
    truth = next((sample[name] for name in TRUTHS if sample.get(name) is not None), None)
    if truth is None:
        return {f"map_{name}": None for name in names}
    kind, found = predicted_map(run.restorer, prepared, device=run.device)
    if tuple(found.shape[-2:]) != tuple(truth.shape[-2:]):
        found = torch.nn.functional.interpolate(found[None], size=truth.shape[-2:], mode="nearest")[0]
    signed = bool((truth.nan_to_num() < 0).any())
    if kind in UNSIGNED and signed:
        truth = truth.abs()
    return {f"map_{name}": MAP_METRICS.build({"type": name})(found, truth) for name in names}


@torch.no_grad()
def predicted_map(restorer: Restorer, prepared: Mapping, *, device: torch.device | str = "cpu") -> \
        tuple[str, torch.Tensor]:
    """Return the kind (of `PREDICTED`) and the map (1, H, W) that a restorer predicts for a pair.

    Frames are predicted in pieces. A module that gives a vector a window (K3DN's) is shown by the first principal
    component of all windows' vectors.

    Raises:
        OptionError: the restorer predicts no map.
    """
    height, width = prepared["lq"].shape[-2:]
    kind, pieces = None, []
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            place = (slice(top, min(top + SIDE, height)), slice(left, min(left + SIDE, width)))
            lq, center = (prepared[key][(..., *place)][None].to(device) for key in ("lq", "center"))
            batch = {"lq": lq, "center": center, "gt": center, **restorer.maps_of(prepared)}
            outputs = restorer.training_outputs(batch)
            kind = kind or next((name for name in PREDICTED if outputs.get(name) is not None), None)
            if kind is None:
                raise OptionError(f"{type(restorer).__name__} predicts no disparity or defocus map, so there is "
                                  "nothing for map metrics to score; leave --map-metrics out")
            value = outputs[kind]
            value = value.as_map() if isinstance(value, DisparityFeature) else value.float().mean(1, keepdim=True)
            pieces.append((place, value[0].float().cpu()))
    if pieces[0][1].shape[0] > 1:
        flat = [piece.flatten(1).T for _, piece in pieces]
        along = principal_values(torch.cat(flat)).split([len(part) for part in flat])
        pieces = [(place, part.view(1, *piece.shape[1:]))
                  for (place, piece), part in zip(pieces, along, strict=True)]
    found = torch.empty(1, height, width)
    for place, piece in pieces:
        size = [part.stop - part.start for part in place]
        found[(0, *place)] = torch.nn.functional.interpolate(piece[None], size=size, mode="nearest")[0, 0]
    return str(kind), found


def principal_values(vectors: torch.Tensor) -> torch.Tensor:
    """Return (N,): the (N, D) vectors along the direction in which they differ most; its sign is arbitrary."""
    centered = vectors.float() - vectors.float().mean(0)
    if len(vectors) < 2 or not centered.abs().sum() > 0:
        return torch.zeros(len(vectors))
    _, _, directions = torch.linalg.svd(centered, full_matrices=False)
    return centered @ directions[0]
