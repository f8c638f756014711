"""What simulated scenes are like, and what is drawn for one of them: lens, sensor, place in the frame."""
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.psf import MEASURED, PsfSettings, check_psf
from k3dn_plugin.simulation.rdpd import CAMERAS
from k3dn_plugin.simulation.sensor import SensorSettings

FACTS = {
    "bit_depth": 16, "linear": False, "disparity_axis": "x", "simulated": True,
    "disparity_unit": "px, column in the right view minus column in the left (of the kernels' centroids)",
    "defocus_unit": "px, signed blur radius: positive where the right view's content lies further right "
                    "(beyond the focus plane)",
}
MODES = ("layered", "rdpd", "dddnet")


@dataclass(frozen=True)
class SimulationSettings:
    """What simulated scenes are like.

    Attributes:
        size: (H, W) of the frames.
        max_radius: largest blur radius in pixels, on either side of the focus.
        families: PSF families, one drawn a scene; "measured" needs `bank`.
        split: range of the split strength (see `PsfSettings`).
        field_share: share of scenes with an uneven, elliptic aperture, alike over the whole picture.
        shot, read: noise (see `SensorSettings`).
        flat_share: share of scenes at one distance.
        smooth_share: share of scenes with one surface whose depth rises and falls, smoothly or in planes.
        shrink: range of the factor by which photographs are made smaller.
        frame: (rows, columns) of the camera's frame: each scene then lies somewhere in it, which decides its
            kernels' asymmetry, vignetting and distortion; None gives every scene the axis in its middle.
        field_tilt: range of the asymmetry at the frame's edge (see `PsfSettings`), drawn with `frame` alone.
        distortion_share: share of scenes with radial distortion, one of those that RDPD takes.
        bank: folder of measured kernels.
        mode: "layered" (ours); "rdpd" or "dddnet", the published simulators, for pictures with depth.
        bit_depth: 16 or 8, of the frames.
        fast: see `layers.render_pair`.
    """

    size: tuple[int, int] = (320, 320)
    max_radius: float = 8.0
    families: tuple[str, ...] = field(default_factory=lambda: tuple(PSF_FAMILIES.names()))
    split: tuple[float, float] = (0.5, 1.0)
    field_share: float = 0.3
    shot: float = 0.004
    read: float = 0.001
    flat_share: float = 0.2
    smooth_share: float = 0.0
    shrink: tuple[float, float] = (1.0, 2.0)
    frame: tuple[int, int] | None = None
    field_tilt: tuple[float, float] = (0.0, 0.8)
    distortion_share: float = 0.0
    bank: str | None = None
    mode: Literal["layered", "rdpd", "dddnet"] = "layered"
    bit_depth: Literal[8, 16] = 16
    fast: bool = False

    def as_facts(self) -> dict:
        """For the store's manifest: a build resumes only with the same settings."""
        return {**FACTS, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}


def check_settings(settings: SimulationSettings, count: int = 1):
    """Raise `OptionError` for settings that no scene can have."""
    for family in settings.families:
        check_psf(PsfSettings(family=family, parameters={"folder": settings.bank} if settings.bank else {}))
    if not settings.families or settings.mode not in MODES or settings.bit_depth not in (8, 16):
        raise OptionError(f"a simulation needs a PSF family, a mode of {', '.join(MODES)} and a bit_depth of 8 "
                          f"or 16; found {settings.families}, {settings.mode!r}, {settings.bit_depth}")
    if count < 1 or min(settings.size) < 32 or settings.max_radius <= 0:
        raise OptionError("a simulation needs at least one scene, frames of 32 pixels and a positive "
                          f"max_radius; found {count}, {settings.size}, {settings.max_radius}")
    if settings.max_radius * 4 > min(settings.size):
        raise OptionError(f"max_radius {settings.max_radius} is more than a quarter of frames of "
                          f"{settings.size[0]} x {settings.size[1]}: nothing would be left to see")
    for name, low, high in (("split", 0, 1), ("field_tilt", 0, 1), ("shrink", 1, 100)):
        first, last = getattr(settings, name)
        if not low <= first <= last <= high:
            raise OptionError(f"{name}: expected a range (from, to) within {low} to {high}, found "
                              f"{(first, last)}")
    for name in ("field_share", "flat_share", "smooth_share", "distortion_share"):
        if not 0 <= getattr(settings, name) <= 1:
            raise OptionError(f"{name}: expected a share from 0 to 1, found {getattr(settings, name)}")
    if settings.shot < 0 or settings.read < 0:
        raise OptionError(f"noise cannot be negative; found shot {settings.shot}, read {settings.read}")
    if settings.frame is not None and any(f < s for f, s in zip(settings.frame, settings.size)):
        raise OptionError(f"frame {settings.frame} must hold pictures of {settings.size}")


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
    if family == MEASURED:
        parameters = {"folder": settings.bank}
    off_axis = random.random() < settings.field_share
    return PsfSettings(family=family, separation=float(random.uniform(*settings.split)), parameters=parameters,
                       tilt=float(random.uniform(-0.4, 0.4)) if off_axis else 0.0,
                       aspect=float(random.uniform(0.85, 1.18)) if off_axis else 1.0,
                       field_tilt=float(random.uniform(*settings.field_tilt)) if settings.frame else 0.0)


def draw_sensor(settings: SimulationSettings, random: np.random.Generator) -> SensorSettings:
    """A read-out for one scene: gains within 2 %, vignetting on a quarter of the scenes."""
    return SensorSettings(gain=tuple(float(g) for g in random.uniform(0.98, 1.02, 2)),
                          ramp=float(random.uniform(-0.1, 0.1)) if random.random() < 0.25 else 0.0,
                          shot=settings.shot, read=settings.read)


def draw_window(settings: SimulationSettings, random: np.random.Generator) -> FieldWindow | None:
    """Where in the frame a scene lies."""
    if settings.frame is None:
        return None
    origin = (int(random.integers(whole - part + 1)) for whole, part in zip(settings.frame, settings.size))
    return FieldWindow(tuple(settings.frame), tuple(origin))


def draw_distortion(settings: SimulationSettings, random: np.random.Generator) -> tuple[float, ...] | None:
    """Coefficients of a radial distortion, or None."""
    if not settings.distortion_share or random.random() >= settings.distortion_share:
        return None
    return CAMERAS[int(random.integers(len(CAMERAS)))].distortion
