"""Pictures of what K3DN's modules do: the disparity response, the kernel sets, the preservation gates."""
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.evaluation.maps import principal_values
from k3dn_plugin.files import atomic_write
from k3dn_plugin.modules.preservation.sharp_region import SharpRegionPreservation
from k3dn_plugin.modules.preservation.skips import GatedSkip

LARGEST = 768   # side of the part of a frame that is looked at
KERNELS = 48    # of a set that are shown


def internal_pictures(restorer: Restorer, sample: Mapping) -> dict[str, bytes]:
    """Return PNG files by title of what a restorer's modules do with a sample; empty where it has no such modules."""
    restorer = getattr(restorer, "restorer", restorer)  # inside of a preserved one
    # What can be looked at is what a restorer declares to have: a disparity module is one of its slots.
    if "disparity" not in getattr(restorer, "slots", ()) or restorer.disparity is None:
        return {}
    found = {f"disparity response of the windows of {sample['name']}": disparity_picture(restorer, sample)}
    if kernel_sets(restorer):
        found["kernels of the first set, and of the last"] = kernel_picture(restorer)
    gates = gate_picture(restorer, sample)
    if gates is not None:
        found["preservation gates, from coarse to fine"] = gates
    return found


def cropped(sample: Mapping) -> torch.Tensor:
    """Return (1, 6, H, W): the middle of a sample's pair, at most `LARGEST` on a side."""
    lq = sample["lq"]
    top, left = (max(size - LARGEST, 0) // 2 for size in lq.shape[-2:])
    return lq[None, :, top:top + LARGEST, left:left + LARGEST]


def disparity_of(restorer: Restorer, lq: torch.Tensor) -> torch.Tensor:
    """Return (rows, columns, D): the disparity vectors of the windows of one pair."""
    with torch.inference_mode():
        feature = restorer.training_outputs({"lq": lq, "gt": lq[:, :3]})["disparity"]
    return feature.as_map()[0].permute(1, 2, 0)


def kernel_sets(restorer: Restorer) -> list[torch.Tensor]:
    """Return the (C, k, k) kernels of each block of a deblur module that has kernel sets; else an empty list."""
    blocks = getattr(getattr(restorer, "deblur", None), "blocks", [])
    if not len(blocks):
        return []
    with torch.inference_mode():
        if all(hasattr(block, "kernels") and callable(block.kernels) for block in blocks):
            return [block.kernels().detach() for block in blocks]
        if all(hasattr(block, "kernel_set") for block in blocks):
            return [block.kernel_set().detach() for block in blocks]
    return []


def principal(vectors: torch.Tensor) -> torch.Tensor:
    """Return (rows, columns): the vectors along the direction in which they differ most."""
    return principal_values(vectors.flatten(0, 1)).view(vectors.shape[:2])


def disparity_picture(restorer: Restorer, sample: Mapping) -> bytes:
    """Return the left view, and the windows' vectors along their principal direction."""
    lq = cropped(sample)
    response = principal(disparity_of(restorer, lq))
    return _figure([(lq[0, :3].permute(1, 2, 0).clamp(0, 1), None, "left view"),
                    (response, "coolwarm", "vectors, first principal component")])


def kernel_picture(restorer: Restorer) -> bytes:
    """Return kernels of the first and the last set, side by side, each scaled by its largest value."""
    sets = kernel_sets(restorer)
    chosen = [sets[0], sets[-1]] if len(sets) > 1 else sets
    return _figure([(mosaic(kernels[:KERNELS]), "coolwarm", f"{len(kernels)} kernels") for kernels in chosen])


def mosaic(kernels: torch.Tensor, columns: int = 8) -> torch.Tensor:
    """Return (C, k, k) kernels as one picture, each divided by its largest magnitude, a line between them."""
    count, side = kernels.shape[0], kernels.shape[-1]
    rows = -(-count // columns)
    picture = torch.full((rows * (side + 1), columns * (side + 1)), float("nan"))
    for number, kernel in enumerate(kernels):
        row, column = divmod(number, columns)
        place = slice(row * (side + 1), row * (side + 1) + side), slice(column * (side + 1), column * (side + 1) + side)
        picture[place] = kernel / kernel.abs().max().clamp(min=1e-12)
    return picture


def gate_picture(restorer: Restorer, sample: Mapping) -> bytes | None:
    """Return the mean gate of each level of sharp-region preservation; None where there is no such gate."""
    gates, handles = [], []
    for level in getattr(restorer, "preservation", []):
        if isinstance(level, (SharpRegionPreservation, GatedSkip)):
            def keep(module: SharpRegionPreservation | GatedSkip, inputs: tuple, output: torch.Tensor) -> None:
                gate = module.gate(torch.cat(inputs, 1))
                gates.append((torch.sigmoid(gate) if isinstance(module, GatedSkip) else gate).float().mean(1)[0])
            handles.append(level.register_forward_hook(keep))
    if not handles:
        return None
    try:
        with torch.inference_mode():
            restorer(cropped(sample))
    finally:
        for handle in handles:
            handle.remove()
    return _figure([(gate, "viridis", f"level {number + 1}") for number, gate in enumerate(gates)])


def _figure(panels: Sequence[tuple[torch.Tensor, str | None, str]]) -> bytes:
    from matplotlib.figure import Figure  # slow to import
    figure = Figure(figsize=(4.2 * len(panels), 3.6))
    for axes, (image, colors, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        shown = axes.imshow(image.numpy(), cmap=colors, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        if colors:
            figure.colorbar(shown, ax=axes, fraction=0.046)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    return buffer.getvalue()


def write_pictures(pictures: dict[str, bytes], folder: str | Path) -> list[Path]:
    """Write each picture as a PNG file named by its title."""
    written = []
    for title, data in pictures.items():
        path = Path(folder) / (re.sub(r"[^\w.-]+", "_", title) + ".png")
        with atomic_write(path) as file:
            file.write(data)
        written.append(path)
    return written
