"""One simulated dual-pixel scene, decided by the numbers that its random source is made from."""
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from k3dn_plugin.data.sample import random_source
from k3dn_plugin.simulation.disparity import disparity_map
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.layers import Surface, render_pair, surfaces_from_depth
from k3dn_plugin.simulation.photographs import load_linear
from k3dn_plugin.simulation.psf import PsfSettings
from k3dn_plugin.simulation.radial import distort, margin_needed
from k3dn_plugin.simulation.scenes import LinearPictures, flatten, random_scene
from k3dn_plugin.simulation.sensor import SensorSettings, collected, develop, expose
from k3dn_plugin.simulation.settings import (
    FACTS,
    SimulationSettings,
    draw_distortion,
    draw_largest_radius,
    draw_psf,
    draw_sensor,
    draw_window,
)

__all__ = ["FACTS", "SimulationSettings", "draw_scene", "load_photographs", "photograph", "random_source",
           "simulate_from_depth", "simulate_scene"]


def simulate_scene(photos: LinearPictures, settings: SimulationSettings, *, seed: int, index: int,
                   device: str = "cpu") -> dict[str, np.ndarray]:
    """Simulate scene `index`: left, right, center, sharp (H, W, 3), defocus, disparity (H, W) float32.

    Args:
        photos: (3, H, W) pictures in linear light, or `sources.Photographs`.
        settings: what scenes are like.
        seed, index: decide the scene.
        device: where it is rendered.
    """
    return draw_scene(photos, settings, random_source(seed, index), device=device)


def draw_scene(photos: LinearPictures, settings: SimulationSettings, random: np.random.Generator, *,
               device: str = "cpu") -> dict[str, np.ndarray]:
    """Simulate a scene from a random source; otherwise as `simulate_scene`."""
    window, distortion = draw_window(settings, random), draw_distortion(settings, random)
    margin, size = 0, settings.size
    if distortion is not None:
        window = window or FieldWindow(size)
        margin = margin_needed(size, distortion, window)
        window, size = window.grown(margin), (size[0] + 2 * margin, size[1] + 2 * margin)
    surfaces = random_scene(photos, size, random, max_radius=draw_largest_radius(settings, random),
                            shrink=settings.shrink, flat_share=settings.flat_share,
                            smooth_share=settings.smooth_share, procedural_share=settings.procedural_share,
                            soft_share=settings.soft_share)
    surfaces = [dataclasses.replace(s, color=s.color.to(device), alpha=s.alpha.to(device),
                                    radius=s.radius.to(device)) for s in surfaces]
    sharp, radius = flatten(surfaces)
    psf, sensor = draw_psf(settings, random), draw_sensor(settings, random)
    return photograph(surfaces, sharp, radius, psf, sensor, random, window=window, distortion=distortion,
                      margin=margin, fast=settings.fast, bit_depth=settings.bit_depth)


def simulate_from_depth(image: torch.Tensor, radius: torch.Tensor, psf: PsfSettings, sensor: SensorSettings, *,
                        seed: int, index: int) -> dict[str, np.ndarray]:
    """Simulate the frames of an RGB-D picture: (3, H, W) linear light and (H, W) signed blur radii."""
    surfaces = surfaces_from_depth(image, radius)
    return photograph(surfaces, image, radius, psf, sensor, random_source(seed, index))


def photograph(surfaces: Sequence[Surface], sharp: torch.Tensor, radius: torch.Tensor, psf: PsfSettings,
               sensor: SensorSettings, random: np.random.Generator, *, window: FieldWindow | None = None,
               distortion: tuple[float, ...] | None = None, margin: int = 0,
               fast: bool = False, bit_depth: int = 16) -> dict[str, np.ndarray]:
    """Render and read out. Each view has its own noise; center is their mean, the truth has neither.

    Args:
        surfaces: back to front.
        sharp, radius: what is seen of them, (3, H, W) and (H, W).
        psf, sensor: the camera.
        random: source of the noise.
        window: of the picture in the frame.
        distortion: radial coefficients, for views, truth and maps alike.
        margin: pixels that are cut off every side after the distortion.
        fast, bit_depth: see `SimulationSettings`.
    """
    views = render_pair(surfaces, psf, window=window, fast=fast)
    disparity = disparity_map(radius, psf, window=window, fast=fast)
    if distortion is not None:
        views = [distort(view, distortion, window=window, margin=margin, repeat=True) for view in views]
        sharp = distort(sharp, distortion, window=window, margin=margin, repeat=True)
        maps = distort(torch.stack([radius, disparity]), distortion, window=window, margin=margin, nearest=True,
                       repeat=True)
        radius, disparity = maps[0], maps[1]
        window = window and window.grown(-margin)
    exposed = [expose(collected(view, sensor), side, sensor, random, window=window)
               for side, view in enumerate(views)]
    return {"left": develop(exposed[0], sensor, bit_depth), "right": develop(exposed[1], sensor, bit_depth),
            "center": develop((exposed[0] + exposed[1]) / 2, sensor, bit_depth),
            "sharp": develop(collected(sharp, sensor), sensor, bit_depth, compressed=False),
            "defocus": radius.cpu().numpy().astype(np.float32),
            "disparity": disparity.cpu().numpy().astype(np.float32)}


def load_photographs(paths: Iterable[str | Path]) -> list[torch.Tensor]:
    """Return photographs in linear light."""
    return [load_linear(path) for path in paths]
