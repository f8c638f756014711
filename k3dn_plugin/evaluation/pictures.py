"""Comparison pictures: input, restored and truth with their PSNR, a zoomed detail, the two views.

| input 24.1 dB | restored 26.8 dB | truth            |     whole frames
| detail        | detail           | detail           |     where input and truth differ most
| left          | right            | left - right     |     the same detail, the difference around gray
"""
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from k3dn_plugin.data.collage import beside, captioned, eight_bits, stacked
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.evaluation.results import ImageRow
from k3dn_plugin.files import atomic_write

PANEL_WIDTH = 520    # pixels; three panels a row
DETAIL_SHARE = 4     # a detail is a quarter of the frame's sides
SMALLEST_DETAIL = 48


def save_comparison(path: Path, images: Mapping[str, torch.Tensor], row: ImageRow,
                    protocol: EvaluationProtocol) -> Path:
    """Write the comparison picture of an `ImageRow` as PNG and return its path.

    Args:
        images: `input`, `restored`, `truth` (3, H, W) and `views` (6, H', W'), all in [0, 1].
    """
    picture = comparison(images, row, protocol)
    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise ValueError(f"OpenCV could not encode the picture of {row.name}")
    with atomic_write(path) as file:
        file.write(data.tobytes())
    return path


def comparison(images: Mapping[str, torch.Tensor], row: ImageRow, protocol: EvaluationProtocol) -> np.ndarray:
    """Return the picture as a uint8 RGB array."""
    show = {name: protocol.display(image.float().cpu()) for name, image in images.items()}
    truth = show["truth"]
    rows, columns = detail_window(show["input"], truth)
    height, width = truth.shape[-2:]
    shape = _panel_shape((height, width))
    detail_shape = _panel_shape((rows.stop - rows.start, columns.stop - columns.start))
    restored, blurred = caption("restored", row.scores), caption("input", row.input_scores)
    whole = [_panel(image, shape, text) for image, text in (
        (show["input"], f"{blurred}   {row.name}"), (show["restored"], restored), (truth, "truth"))]
    detail = [_panel(show[name][:, rows, columns], detail_shape, text) for name, text in (
        ("input", "input, detail"), ("restored", "restored, detail"), ("truth", "truth, detail"))]
    left, right = (_scaled_detail(view, truth, rows, columns) for view in show["views"].split(3))
    difference = (0.5 + 2 * (left - right)).clamp(0, 1)
    views = [_panel(view, detail_shape, text) for view, text in (
        (left, "left view"), (right, "right view"), (difference, "left - right, twice, around gray"))]
    return stacked([beside(panels) for panels in (whole, detail, views)])


def caption(label: str, scores: Mapping[str, float | None]) -> str:
    """Return `restored 26.81 dB`, with the PSNR where it was computed."""
    return f"{label} {scores['psnr']:.2f} dB" if "psnr" in scores else label


def detail_window(blurred: torch.Tensor, truth: torch.Tensor) -> tuple[slice, slice]:
    """Return (rows, columns) slices of the window in which the blurred image differs most from the truth."""
    height, width = truth.shape[-2:]
    size = [min(max(n // DETAIL_SHARE, SMALLEST_DETAIL), n) for n in (height, width)]
    error = (blurred - truth).abs().mean(0)[None, None]
    mean = F.avg_pool2d(error, size, stride=1)[0, 0]
    row, column = divmod(int(mean.argmax()), mean.shape[1])
    return slice(row, row + size[0]), slice(column, column + size[1])


def _scaled_detail(view: torch.Tensor, truth: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
    """The detail of a view, which a protocol may have resized beside the truth."""
    if view.shape[-2:] != truth.shape[-2:]:
        view = F.interpolate(view[None], size=truth.shape[-2:], mode="area")[0]
    return view[:, rows, columns]


def _panel_shape(size: tuple[int, int]) -> tuple[int, int]:
    return max(round(size[0] * PANEL_WIDTH / size[1]), 1), PANEL_WIDTH


def _panel(image: torch.Tensor, shape: tuple[int, int], text: str) -> np.ndarray:
    """A captioned panel: the image scaled to `shape`, pixels kept visible where it is enlarged."""
    larger = shape[1] > image.shape[-1]
    array = eight_bits(image.permute(1, 2, 0).contiguous().numpy())
    array = cv2.resize(array, shape[::-1], interpolation=cv2.INTER_NEAREST if larger else cv2.INTER_AREA)
    return captioned(array, text)
