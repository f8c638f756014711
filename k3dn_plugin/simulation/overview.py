"""The picture of the documentation: kernels of every family, and pairs from every renderer.

python tools/simulate.py --figure docs/simulation.jpg
"""
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from k3dn_plugin.data.collage import color_of_radius, eight_bits
from k3dn_plugin.files import atomic_write
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation import dddnet, rdpd
from k3dn_plugin.simulation.demo import load_motorcycle
from k3dn_plugin.simulation.layers import surfaces_from_depth
from k3dn_plugin.simulation.optics import blur_radius_from_disparity
from k3dn_plugin.simulation.pairs import photograph, random_source, simulate_scene
from k3dn_plugin.simulation.psf import MEASURED, PsfSettings, kernel_pair
from k3dn_plugin.simulation.sensor import SensorSettings, quantize
from k3dn_plugin.simulation.settings import SimulationSettings
from k3dn_plugin.simulation.sources import Photographs

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

RADII = (-10.0, -5.0, -2.0, 2.0, 5.0, 10.0)
FIELD = (-0.9, 0.0, 0.9)
CROP = (slice(130, 370), slice(150, 510))  # of the motorcycle scene


def write_overview(path: str | Path, *, bank: str | None = None) -> Path:
    """Draw the picture; `bank`, a folder of measured kernels, adds a row of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure  # slow to import
    kernels, pairs = kernel_rows(bank), pair_rows()
    figure = Figure(figsize=(11, 1.0 * len(kernels) + 1.3 * len(pairs) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subfigures(2, 1, height_ratios=(len(kernels), 1.3 * len(pairs)))
    columns = [f"r = {r:+g} px" for r in RADII] + [f"r = +10, u = {u:+g}" for u in FIELD]
    _draw(panels[0], kernels, columns, "Kernels of the left view (red) and of the right view (cyan)")
    _draw(panels[1], pairs, ["left", "right", "left red, right cyan", "sharp", "blur radius: near, in focus, far"],
          "Pairs")
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:], dpi=100, pil_kwargs={"quality": 80})
    with atomic_write(path) as file:
        file.write(content.getvalue())
    return Path(path)


def kernel_rows(bank: str | None = None) -> dict[str, list[np.ndarray]]:
    """Draw, by family, a picture for each of `RADII` on the axis, then of one radius over the field."""
    rows = {}
    families = [*PSF_FAMILIES.names(), *([MEASURED] if bank else [])]
    for family in families:
        lens = PsfSettings(family=family, separation=1.0, field_tilt=0.8,
                           parameters={"folder": bank} if family == MEASURED else {})
        rows[family] = [_overlay(kernel_pair(r, lens)) for r in RADII] + [
            _overlay(kernel_pair(RADII[-1], lens.at((u, 0.0)))) for u in FIELD]
    rows["rdpd (as released)"] = [
        _overlay(_released(int(r))) for r in RADII] + [np.ones((3, 3, 3))] * len(FIELD)
    return rows


def pair_rows() -> dict[str, list[np.ndarray]]:
    """Draw, by renderer: left, right, both in one, sharp, blur radius; (H, W, 3) uint8."""
    settings = SimulationSettings(size=(240, 360), max_radius=9.0, flat_share=0.0, smooth_share=0.0, frame=None,
                                  distortion_share=0.0, families=("half_disc",))
    image, disparity = load_motorcycle()
    middle = float(np.quantile(disparity.numpy(), 0.5))
    radius = blur_radius_from_disparity(disparity, in_focus=middle, max_radius=8.0)
    made = photograph(surfaces_from_depth(image, radius), image, radius, PsfSettings(separation=1.0),
                      SensorSettings(), random_source(0))
    pixels, depth = quantize(image, 8), _metres(disparity)
    released = {**rdpd.render_rdpd(pixels, 2.5 * depth, rdpd.CAMERAS[2], rdpd.PSF_BANK[0]), "sharp": pixels}
    shifts = dddnet.dddnet_disparity(depth, dddnet.CAMERAS[-1])
    splatted = {**dddnet.render_dddnet(pixels, shifts), "sharp": pixels}
    scenes = {
        "photographs,\nlayered": simulate_scene(Photographs(), settings, seed=4, index=17),
        "with depth,\nlayered": _cut(made), "with depth,\nmode: rdpd": _cut(released),
        "with depth,\nmode: dddnet": _cut(splatted),
    }
    rows = {}
    for name, frames in scenes.items():
        left, right, sharp = (eight_bits(frames[view]) for view in ("left", "right", "sharp"))
        both = np.dstack([left.mean(2), right.mean(2), right.mean(2)]).astype(np.uint8)
        rows[name] = [left, right, both, sharp, color_of_radius(frames["defocus"])]
    return rows


def _cut(frames: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {view: frame[CROP] for view, frame in frames.items()}


def _metres(disparity: torch.Tensor) -> np.ndarray:
    """Depths of 2 to 12 metres for a stereo disparity."""
    nearness = (disparity - disparity.min()) / (disparity.max() - disparity.min())
    return (1 / (1 / 12 + nearness * (1 / 2 - 1 / 12))).double().numpy()


def _released(radius: int) -> list[torch.Tensor]:
    """RDPD's kernels, which are for correlation, turned to show how a point spreads."""
    kernels = rdpd.rdpd_kernels(radius, rdpd.PSF_BANK[0])
    pair = kernels.left[::-1, ::-1].copy(), kernels.right[::-1, ::-1].copy()
    return [torch.from_numpy(k) for k in (pair if radius > 0 else pair[::-1])]


def _overlay(pair: Sequence[torch.Tensor]) -> np.ndarray:
    left, right = (k.numpy() / max(float(k.max()) for k in pair) for k in pair)
    return np.dstack([left, right, right]) ** 0.7


def _draw(panel: "SubFigure", rows: Mapping[str, list[np.ndarray]], columns: Sequence[str], title: str) -> None:
    panel.suptitle(title, fontsize=10)
    axes: Any = panel.subplots(len(rows), len(columns))
    for (name, pictures), line in zip(rows.items(), axes, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_visible(False)
    for axis, text in zip(axes[0], columns, strict=True):
        axis.set_title(text, fontsize=8)
