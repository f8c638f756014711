"""One simulated dual-pixel scene, decided by the numbers that its random source is made from."""
import dataclasses

import numpy as np
import torch

from k3dn_plugin.simulation.layers import render_pair, surfaces_from_depth
from k3dn_plugin.simulation.photographs import load_linear
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.psf import PsfSettings, centroid_gap
from k3dn_plugin.simulation.radial import distort, margin_needed
from k3dn_plugin.simulation.scenes import flatten, random_scene
from k3dn_plugin.simulation.sensor import SensorSettings, expose, quantise
from k3dn_plugin.simulation.settings import (
    FACTS,
    SimulationSettings,
    draw_distortion,
    draw_window,
    draw_psf,
    draw_sensor,
)

__all__ = ["FACTS", "SimulationSettings", "draw_scene", "load_photographs", "photograph", "random_source",
           "simulate_from_depth", "simulate_scene"]


def random_source(*numbers: int) -> np.random.Generator:
    """A generator that depends on its arguments (seed, index, ...) alone, whichever process asks."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(numbers))))


def simulate_scene(photos, settings: SimulationSettings, *, seed: int, index: int,
                   device: str = "cpu") -> dict[str, np.ndarray]:
    """The frames of scene `index`: left, right, center, sharp (H, W, 3), defocus, disparity (H, W) float32.

    Args:
        photos: (3, H, W) pictures in linear light, or `sources.Photographs`.
        settings: what scenes are like.
        seed, index: decide the scene.
        device: where it is rendered.
    """
    return draw_scene(photos, settings, random_source(seed, index), device=device)


def draw_scene(photos, settings: SimulationSettings, random: np.random.Generator, *,
               device: str = "cpu") -> dict[str, np.ndarray]:
    """The same from a random source."""
    place, distortion = draw_window(settings, random), draw_distortion(settings, random)
    margin, size = 0, settings.size
    if distortion is not None:
        place = place or FieldWindow(size)
        margin = margin_needed(size, distortion, place)
        place, size = place.grown(margin), (size[0] + 2 * margin, size[1] + 2 * margin)
    surfaces = random_scene(photos, size, random, max_radius=settings.max_radius, shrink=settings.shrink,
                            flat_share=settings.flat_share, smooth_share=settings.smooth_share)
    surfaces = [dataclasses.replace(s, color=s.color.to(device), alpha=s.alpha.to(device),
                                    radius=s.radius.to(device)) for s in surfaces]
    sharp, radius = flatten(surfaces)
    psf, sensor = draw_psf(settings, random), draw_sensor(settings, random)
    return photograph(surfaces, sharp, radius, psf, sensor, random, window=window, distortion=distortion,
                      margin=margin, fast=settings.fast, bit_depth=settings.bit_depth)


def simulate_from_depth(image: torch.Tensor, radius: torch.Tensor, psf: PsfSettings, sensor: SensorSettings, *,
                        seed: int, index: int) -> dict[str, np.ndarray]:
    """The frames of an RGB-D picture: (3, H, W) linear light and (H, W) signed blur radii."""
    surfaces = surfaces_from_depth(image, radius)
    return photograph(surfaces, image, radius, psf, sensor, random_source(seed, index))


def photograph(surfaces, sharp, radius, psf: PsfSettings, sensor: SensorSettings,
               random: np.random.Generator, *, place: FieldWindow | None = None, distortion=None, margin: int = 0,
               fast: bool = False, bit_depth: int = 16) -> dict[str, np.ndarray]:
    """Render and read out. Each view has its own noise; center is their mean, the truth has neither.

    Args:
        surfaces: back to front.
        sharp, radius: what is seen of them, (3, H, W) and (H, W).
        psf, sensor: the camera.
        random: source of the noise.
        place: of the picture in the frame.
        distortion: radial coefficients, for views, truth and maps alike.
        margin: pixels that are cut off every side after the distortion.
        fast, bit_depth: see `SimulationSettings`.
    """
    views = render_pair(surfaces, psf, window=window, fast=fast)
    gap = _gap(radius, psf, place)
    if distortion is not None:
        views = [distort(view, distortion, window=window, margin=margin, repeat=True) for view in views]
        sharp = distort(sharp, distortion, window=window, margin=margin, repeat=True)
        radius = distort(radius[None], distortion, window=window, margin=margin, nearest=True, repeat=True)[0]
        place = place and place.grown(-margin)
    # The random numbers come from the CPU: the same on every device.
    views = [expose(view, side, sensor, random, window=window) for side, view in enumerate(views)]
    radius = radius.cpu().numpy().astype(np.float32)
    return {"left": quantise(views[0], bit_depth), "right": quantise(views[1], bit_depth),
            "center": quantise((views[0] + views[1]) / 2, bit_depth), "sharp": quantise(sharp, bit_depth),
            "defocus": radius, "disparity": radius * np.float32(gap)}


def _gap(radius, psf, place):
    """Disparity over blur radius, at the middle of the picture."""
    largest = max(float(radius.abs().max()), 2.0)
    lens = psf if place is None else psf.at(place.middle(radius.shape))
    return centroid_gap(largest, lens) / largest


def load_photographs(paths) -> list[torch.Tensor]:
    """Photographs in linear light."""
    return [load_linear(path) for path in paths]
