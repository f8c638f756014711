"""One simulated dual-pixel scene, decided by (seed, index) alone."""
from dataclasses import dataclass

import numpy as np
import torch

from k3dn_plugin.simulation.layers import render_pair, surfaces_from_depth
from k3dn_plugin.simulation.photographs import load_linear
from k3dn_plugin.simulation.psf import FAMILIES, PsfSettings
from k3dn_plugin.simulation.scenes import flatten, random_scene
from k3dn_plugin.simulation.sensor import SensorSettings, expose, to_uint16

FACTS = {
    "bit_depth": 16, "linear": False, "disparity_axis": "x", "simulated": True,
    "defocus_unit": "px, signed blur radius: positive where the right view's content lies further right "
                    "(beyond the focus plane)",
}


def random_source(seed: int, index: int) -> np.random.Generator:
    """A generator that depends on its arguments alone, whichever process asks."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))


@dataclass(frozen=True)
class SimulationSettings:
    """What simulated scenes are like.

    Attributes:
        size: (H, W) of the frames.
        max_radius: largest blur radius in pixels, on either side of the focus.
        families: PSF families, one drawn a scene.
        split: range of the split strength (see `PsfSettings`).
        field_share: share of scenes with the asymmetry of field positions off the axis.
        shot, read: noise (see `SensorSettings`).
        flat_share: share of scenes at one distance.
    """

    size: tuple[int, int] = (320, 320)
    max_radius: float = 8.0
    families: tuple[str, ...] = tuple(sorted(FAMILIES))
    split: tuple[float, float] = (0.5, 1.0)
    field_share: float = 0.3
    shot: float = 0.004
    read: float = 0.001
    flat_share: float = 0.2

    def as_facts(self) -> dict:
        """For the store's manifest: a build resumes only with the same settings."""
        return {**FACTS, "size": list(self.size), "max_radius": self.max_radius, "split": list(self.split),
                "families": list(self.families), "field_share": self.field_share, "shot": self.shot,
                "read": self.read, "flat_share": self.flat_share}


def draw_psf(settings: SimulationSettings, random: np.random.Generator) -> PsfSettings:
    """A lens and sensor for one scene."""
    family = settings.families[int(random.integers(len(settings.families)))]
    parameters = {}
    if family == "butterworth":
        # The settings of the released code.
        parameters = {"order": int(random.choice([3, 6, 9])), "cutoff": float(random.choice([2.0, 2.5])),
                      "floor": float(random.choice([0.1, 0.2]))}
    if family == "soft_disc":
        parameters = {"softness": float(random.uniform(0.1, 0.4))}
    off_axis = random.random() < settings.field_share
    return PsfSettings(family=family, split=float(random.uniform(*settings.split)), parameters=parameters,
                       tilt=float(random.uniform(-0.4, 0.4)) if off_axis else 0.0,
                       aspect=float(random.uniform(0.85, 1.18)) if off_axis else 1.0)


def draw_sensor(settings: SimulationSettings, random: np.random.Generator) -> SensorSettings:
    """A read-out for one scene: gains within 2 %, vignetting on a quarter of the scenes."""
    return SensorSettings(gain=tuple(float(g) for g in random.uniform(0.98, 1.02, 2)),
                          ramp=float(random.uniform(-0.1, 0.1)) if random.random() < 0.25 else 0.0,
                          shot=settings.shot, read=settings.read)


def simulate_scene(photos, settings: SimulationSettings, *, seed: int, index: int) -> dict[str, np.ndarray]:
    """The frames of scene `index`: left, right, center, sharp (H, W, 3) uint16, defocus (H, W) float32.

    Args:
        photos: (3, H, W) pictures in linear light.
    """
    random = random_source(seed, index)
    surfaces = random_scene(photos, settings.size, random, max_radius=settings.max_radius,
                            flat_share=settings.flat_share)
    sharp, radius = flatten(surfaces)
    return photograph(surfaces, sharp, radius, draw_psf(settings, random), draw_sensor(settings, random), random)


def simulate_from_depth(image: torch.Tensor, radius: torch.Tensor, psf: PsfSettings, sensor: SensorSettings, *,
                        seed: int, index: int) -> dict[str, np.ndarray]:
    """The frames of an RGB-D picture: (3, H, W) linear light and (H, W) signed blur radii."""
    surfaces = surfaces_from_depth(image, radius)
    return photograph(surfaces, image, radius, psf, sensor, random_source(seed, index))


def photograph(surfaces, sharp, radius, psf, sensor, random) -> dict[str, np.ndarray]:
    """Render and read out. Each view has its own noise; center is their mean, the truth has neither."""
    views = [expose(view, side, sensor, random) for side, view in enumerate(render_pair(surfaces, psf))]
    return {"left": to_uint16(views[0]), "right": to_uint16(views[1]),
            "center": to_uint16((views[0] + views[1]) / 2), "sharp": to_uint16(sharp),
            "defocus": radius.numpy().astype(np.float32)}


def load_photographs(paths) -> list[torch.Tensor]:
    """Photographs in linear light."""
    return [load_linear(path) for path in paths]
