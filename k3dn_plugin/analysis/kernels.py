"""What K3DN's kernels look like and which windows ask for them: figures and numbers for `k3dn inspect-kernels`."""
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from k3dn_plugin.analysis.pictures import cropped, disparity_of, kernel_sets, mosaic, principal
from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class KernelSetFacts:
    """Numbers of one kernel set.

    Attributes:
        block: which one, from 0.
        kernels, size: how many, and their side.
        asymmetry: largest difference between a kernel and its mirror image about the middle column, over the
            largest magnitude of the set; 0 by construction, but for rounding.
        low_pass: share of kernels whose gain at frequency zero exceeds that at the highest ones.
        used: effective number of kernels that the windows' queries spread over (exponential of the entropy of
            the mean query), or None where queries cannot be had.
        block_query: query weights (windows, kernels), or None.
    """

    block: int
    kernels: int
    size: int
    asymmetry: float
    low_pass: float
    used: float | None
    block_query: np.ndarray | None


def kernel_facts(restorer: Restorer, sample: Mapping | None = None) -> list[KernelSetFacts]:
    """Return facts of every kernel set of a K3DN; with a sample also what its windows query.

    Raises:
        OptionError: the restorer's deblur module has no kernel sets.
    """
    sets = kernel_sets(restorer)
    if not sets:
        raise OptionError(f"{type(restorer).__name__} has no kernel sets to look at; expected K3DN with "
                          "KernelSetDeblur or WienerDeblur")
    queries = _queries(restorer, sample) if sample is not None else [None] * len(sets)
    facts = []
    for number, (kernels, query) in enumerate(zip(sets, queries)):
        spectrum = torch.fft.fft2(kernels.float()).abs()
        half = kernels.shape[-1] // 2
        used = None
        if query is not None:
            share = query.mean(0)
            share = share / share.sum()
            used = float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
        facts.append(KernelSetFacts(
            number, len(kernels), kernels.shape[-1],
            float((kernels - kernels.flip(-1)).abs().max() / kernels.abs().max().clamp(min=1e-12)),
            float((spectrum[:, 0, 0] > spectrum[:, half, half]).float().mean()), used,
            None if query is None else query.numpy()))
    return facts


def _queries(restorer: Restorer, sample: Mapping) -> list[torch.Tensor]:
    """(windows, kernels) weights of each block for a sample's pair."""
    vectors = disparity_of(restorer, cropped(sample)).flatten(0, 1)
    blocks: Any = restorer.get_submodule("deblur.blocks")
    found = []
    with torch.inference_mode():
        for block in blocks:
            if hasattr(block, "kernels"):
                query = block.query(vectors, block.kernels())
            else:  # WienerDeblur mixes blur kernels by these weights
                query = block.query(vectors).softmax(-1)
            found.append(query.float().cpu())
    return found


def disparity_against_blur(restorer: Restorer, sample: Mapping) -> tuple[np.ndarray, np.ndarray] | None:
    """Per window: first principal component of its vector, and the median true blur radius; None without a truth.

    The sign of a principal component is arbitrary; it is turned so that the two rise together.
    """
    if sample.get("defocus") is None:
        return None
    lq = cropped(sample)
    response = principal(disparity_of(restorer, lq))
    rows, columns = response.shape
    height, width = sample["defocus"].shape[-2:]
    top, left = (max(size - have, 0) // 2 for size, have in zip((height, width), lq.shape[-2:]))
    blur = sample["defocus"][0, top:top + lq.shape[-2], left:left + lq.shape[-1]].numpy()
    sides: Any = restorer.window
    window = [side * 8 for side in sides]
    radius = np.full((rows, columns), np.nan)
    for i in range(rows):
        for j in range(columns):
            part = blur[i * window[0]:(i + 1) * window[0], j * window[1]:(j + 1) * window[1]]
            if part.size:
                radius[i, j] = np.nanmedian(part)
    known = np.isfinite(radius)
    values, truth = response.numpy()[known], radius[known]
    if len(values) > 2 and np.corrcoef(values, truth)[0, 1] < 0:
        values = -values
    return values, truth


def inspection_pictures(restorer: Restorer, sample: Mapping | None = None) -> dict[str, bytes]:
    """PNG files by name: kernels, spectra, and with a sample queries and disparity against blur."""
    facts, sets = kernel_facts(restorer, sample), kernel_sets(restorer)
    pictures = {
        "kernels": _grid([(mosaic(kernels), "coolwarm", f"set {i + 1}: {len(kernels)} kernels")
                          for i, kernels in enumerate(sets)]),
        "spectra": _grid([(mosaic(torch.fft.fftshift(torch.fft.fft2(kernels.float()).abs(), dim=(-2, -1))), "viridis",
                           f"set {i + 1}: gain, frequency zero in the middle") for i, kernels in enumerate(sets)])}
    if sample is not None:
        pictures["queries"] = _grid([(torch.from_numpy(one.block_query), "magma",
                                      f"set {one.block + 1}: windows (down), kernels (across)") for one in facts])
        pair = disparity_against_blur(restorer, sample)
        if pair is not None:
            pictures["disparity_against_blur"] = _scatter(*pair)
    return pictures


def _grid(panels: Sequence[tuple[torch.Tensor, str, str]], columns: int = 4) -> bytes:
    from matplotlib.figure import Figure  # slow to import
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * min(len(panels), columns), 3.6 * rows))
    axes = figure.subplots(rows, min(len(panels), columns), squeeze=False).ravel()
    for one, (image, colors, title) in zip(axes, panels):
        one.imshow(image.numpy(), cmap=colors, interpolation="nearest", aspect="auto")
        one.set_title(title, fontsize=8)
    for one in axes:
        one.set_axis_off()
    return _png(figure)


def _scatter(values: np.ndarray, truth: np.ndarray) -> bytes:
    from matplotlib.figure import Figure  # slow to import
    figure = Figure(figsize=(5, 4))
    axes = figure.add_subplot()
    axes.scatter(truth, values, s=12)
    axes.set_xlabel("true blur radius of the window (px, signed)")
    axes.set_ylabel("disparity vector, first principal component")
    if len(values) > 2:
        axes.set_title(f"correlation {np.corrcoef(values, truth)[0, 1]:.2f} over {len(values)} windows", fontsize=9)
    axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()
