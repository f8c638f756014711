"""Scenes with depth, made from photographs: a background, and cut-outs of others in front of it."""
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from k3dn_plugin.data.images import to_float
from k3dn_plugin.layers.filters import gaussian_blur
from k3dn_plugin.simulation.layers import Surface
from k3dn_plugin.simulation.photographs import random_tile
from k3dn_plugin.simulation.procedural import procedural_picture
from k3dn_plugin.simulation.sources import Photographs

# (3, H, W) pictures in linear light, or what gives such slices: `sources.Photographs`.
LinearPictures = Sequence[torch.Tensor] | Photographs
SOFTNESS = (0.7, 5.0)  # px, sigmas of the Gaussians that soften pictures; even in stops


def random_scene(photos: LinearPictures, size: tuple[int, int], random: np.random.Generator, *, max_radius: float,
                 flat_share: float = 0.2, smooth_share: float = 0.0, shrink: tuple[float, float] = (1.0, 2.0),
                 procedural_share: float = 0.0, soft_share: float = 0.0) -> list[Surface]:
    """Draw the surfaces, back to front, of a scene whose blur radii lie within +-`max_radius` pixels.

    Args:
        photos: (3, H, W) pictures in linear light.
        size: (H, W) of the scene.
        random: source of all choices.
        max_radius: in pixels, on either side of the focus.
        flat_share: of scenes that are one picture at one distance; half of these are in focus.
        smooth_share: of scenes that are one picture on a hilly or folded surface.
        shrink: range of the factor by which photographs are made smaller.
        procedural_share: of surfaces that show a drawn picture in place of a photograph.
        soft_share: of surfaces whose picture is soft in itself.
    """
    def tile() -> torch.Tensor:
        if procedural_share and random.random() < procedural_share:
            picture = procedural_picture(size, random)
        else:
            picture = random_tile(photos[int(random.integers(len(photos)))], size, random, shrink=shrink)
        if soft_share and random.random() < soft_share:
            return gaussian_blur(picture, float(np.exp2(random.uniform(*np.log2(SOFTNESS)))))
        return picture

    solid = torch.ones(1, *size)
    if random.random() < flat_share:
        radius = 0.0 if random.random() < 0.5 else random.uniform(-max_radius, max_radius)
        return [Surface(tile(), solid, torch.full(size, radius))]
    if smooth_share and random.random() < smooth_share:
        return [Surface(tile(), solid, relief(size, max_radius, random))]
    # Nearer is smaller r: sorted so that what is laid over is nearer. The background covers most of the
    # picture, so its radius is drawn first: else nearly all blur would be beyond the focus.
    rearmost = random.uniform(-max_radius, max_radius)
    nearer = random.uniform(-max_radius, rearmost, int(random.integers(2, 6)))
    radii = np.concatenate([[rearmost], np.sort(nearer)[::-1]])
    gap = float(radii[0] - radii[1])
    surfaces = [Surface(tile(), solid, slanted(size, float(radii[0]), min(gap, 2.0), random))]
    for number, radius in enumerate(radii[1:]):
        following = radii[number + 2] if number + 2 < len(radii) else -max_radius
        slope = min(float(radius - following), float(radii[number] - radius), 1.5)
        surfaces.append(Surface(tile(), random_shape(size, random), slanted(size, float(radius), slope, random)))
    return surfaces


def slanted(size: tuple[int, int], radius: float, spread: float, random: np.random.Generator) -> torch.Tensor:
    """Compute the (H, W) blur radii of a plane: `radius` on average, changing by `spread` across the picture."""
    angle = random.uniform(0, 2 * np.pi)
    y = torch.linspace(-0.5, 0.5, size[0])[:, None]
    x = torch.linspace(-0.5, 0.5, size[1])[None]
    return radius + spread * (x * np.cos(angle) + y * np.sin(angle)).float() / np.sqrt(2)


def relief(size: tuple[int, int], max_radius: float, random: np.random.Generator) -> torch.Tensor:
    """Draw (H, W) blur radii of hills (smooth noise) or of folds (the nearer of some planes at each pixel)."""
    low, high = np.sort(random.uniform(-max_radius, max_radius, 2))
    if random.random() < 0.5:
        noise = torch.from_numpy(random.standard_normal((1, 1, 3, 4), dtype=np.float32))
        heights = F.interpolate(noise, size=size, mode="bicubic", align_corners=True)[0, 0]
    else:
        planes = [slanted(size, random.uniform(-0.5, 0.5), random.uniform(1, 3), random)
                  for _ in range(int(random.integers(2, 5)))]
        heights = torch.stack(planes).amin(0)
    heights = (heights - heights.min()) / (heights.max() - heights.min()).clamp(min=1e-6)
    return (low + (high - low) * heights).float()


def random_shape(size: tuple[int, int], random: np.random.Generator) -> torch.Tensor:
    """Draw the (1, H, W) soft-edged coverage of an ellipse, a polygon or a blob."""
    height, width = size
    kind = random.integers(3)
    if kind == 2:
        # Smooth noise above its upper quartile: holes and several parts, as leaves and lattices have.
        noise = torch.from_numpy(random.standard_normal((1, 1, 5, 6), dtype=np.float32))
        smooth = F.interpolate(noise, size=size, mode="bicubic", align_corners=True)[0]
        edge = smooth.flatten().quantile(float(random.uniform(0.6, 0.85)))
        return torch.sigmoid((smooth - edge) / (2.0 * smooth.std() / (min(size) / 6)))
    canvas = np.zeros((height, width), np.uint8)
    center = (int(random.uniform(0.1, 0.9) * width), int(random.uniform(0.1, 0.9) * height))
    reach = random.uniform(0.08, 0.3) * min(size)
    if kind == 0:
        axes = (max(int(reach), 2), max(int(reach * random.uniform(0.3, 1)), 2))
        cv2.ellipse(canvas, center, axes, random.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        angles = np.sort(random.uniform(0, 2 * np.pi, int(random.integers(3, 8))))
        lengths = reach * random.uniform(0.5, 1.4, len(angles))
        corners = np.stack([center[0] + lengths * np.cos(angles), center[1] + lengths * np.sin(angles)], 1)
        cv2.fillPoly(canvas, [corners.round().astype(np.int32)], 255, cv2.LINE_AA)
    return torch.from_numpy(to_float(cv2.GaussianBlur(canvas, (3, 3), 0.7)))[None]


def flatten(surfaces: Sequence[Surface]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the all-in-focus picture (3, H, W) and the (H, W) blur radius of what is seen at each pixel."""
    picture, radius = surfaces[0].color, surfaces[0].radius
    for surface in surfaces[1:]:
        picture = picture * (1 - surface.alpha) + surface.color * surface.alpha
        radius = torch.where(surface.alpha[0] > 0.5, surface.radius, radius)
    return picture, radius
