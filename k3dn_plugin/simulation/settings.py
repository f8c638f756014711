"""What simulated scenes are like, and what is drawn for one of them: lens, sensor, place in the frame."""
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

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
FORMER_NAMES = {"split": "separation"}  # in stores and option files of earlier versions


@dataclass(frozen=True)
class SimulationSettings:
    """What simulated scenes are like. The defaults of the command and of the data set are these.

    Attributes:
        size: (H, W) of the frames.
        max_radius: largest blur radius in pixels, on either side of the focus.
        radius_power: scenes have a largest radius of their own, `max_radius` u^(radius_power - 1) with u uniform in
            [0, 1]: 1 gives all the same, 2 evenly spread ones, and larger numbers mostly small ones.
        families: PSF families, one drawn a scene; "measured" needs `bank`.
        separation: range of the share of the ideal separation between the views (see `PsfSettings`).
        aligned_with: what the truth is aligned with: "center", the picture of the whole aperture, or "left", the left
            view, as the truth of the Pixel 4 pairs is.
        field_share: share of scenes with an uneven, elliptic aperture, alike over the whole picture.
        flat_share: share of scenes at one distance; half of these are in focus.
        smooth_share: share of scenes with one surface whose depth rises and falls, smoothly or in planes.
        shrink: range of the factor by which photographs are made smaller.
        procedural_share: share of surfaces that show a drawn picture in place of a photograph (see `procedural.py`).
        soft_share: share of surfaces whose picture is soft in itself, as clouds and smooth things are: the truth too.
            Only the disparity tells such softness from defocus.
        frame: (rows, columns) of the camera's frame: each scene then lies somewhere in it, which decides its
            kernels' asymmetry, vignetting and distortion; None gives every scene the axis in its middle.
        field_tilt: range of the asymmetry at the frame's edge (see `PsfSettings`), drawn with `frame` alone.
        distortion_share: share of scenes with radial distortion, one of those that RDPD takes.
        bank: folder of measured kernels.
        shot, read: noise of photons and of reading (see `SensorSettings`), at a `noise_scale` of 1.
        noise_scale: range of the factor of both in a scene; most scenes are drawn near its lower end.
        gain: largest deviation of a view's gain from 1, opposite in the two.
        vignetting, vignetting_share: largest brightness ramp (see `SensorSettings`), and share of scenes with one.
        exposure, exposure_share: range of the factor on all light, drawn evenly in stops, and share of scenes with it.
        one_channel_share: share of scenes taken with one color channel (green), as raw dual-pixel data is.
        sharpening, sharpening_share: range of the amount of the camera's unsharp mask, and share of scenes with it.
        jpeg_quality, jpeg_share: range of the quality of JPEG files, and share of scenes whose views went through one.
        mode: "layered" (ours); "rdpd" or "dddnet", the published simulators, for pictures with depth.
        bit_depth: 16 or 8, of the frames.
        fast: see `layers.render_pair`.
    """

    size: tuple[int, int] = (320, 320)
    max_radius: float = 12.0
    radius_power: float = 1.0
    families: tuple[str, ...] = field(default_factory=lambda: tuple(PSF_FAMILIES.names()))
    separation: tuple[float, float] = (0.35, 1.0)
    aligned_with: Literal["center", "left"] = "center"
    field_share: float = 0.3
    flat_share: float = 0.2
    smooth_share: float = 0.15
    shrink: tuple[float, float] = (1.0, 2.0)
    procedural_share: float = 0.0
    soft_share: float = 0.0
    frame: tuple[int, int] | None = (1120, 1680)
    field_tilt: tuple[float, float] = (0.0, 0.8)
    distortion_share: float = 0.1
    bank: str | None = None
    shot: float = 0.004
    read: float = 0.001
    noise_scale: tuple[float, float] = (1.0, 1.0)
    gain: float = 0.02
    vignetting: float = 0.1
    vignetting_share: float = 0.25
    exposure: tuple[float, float] = (1.0, 1.0)
    exposure_share: float = 0.0
    one_channel_share: float = 0.0
    sharpening: tuple[float, float] = (0.2, 0.8)
    sharpening_share: float = 0.0
    jpeg_quality: tuple[int, int] = (80, 98)
    jpeg_share: float = 0.0
    mode: Literal["layered", "rdpd", "dddnet"] = "layered"
    bit_depth: Literal[8, 16] = 16
    fast: bool = False

    def as_facts(self) -> dict[str, Any]:
        """Return the settings for a store's manifest: a build resumes only with the same ones."""
        return {**FACTS, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "SimulationSettings":
        """Return the settings that a store's manifest holds, former names included; what it lacks is the default."""
        known = {f.name for f in fields(cls)}
        found: dict[str, Any] = {FORMER_NAMES.get(name, name): value for name, value in facts.items()}
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                 for name, value in found.items() if name in known}
        return cls(**given)


DEFAULTS = SimulationSettings()


def check_settings(settings: SimulationSettings, count: int = 1) -> None:
    """Raise `OptionError` for settings that no scene can have."""
    for family in settings.families:
        check_psf(PsfSettings(family=family, aligned_with=settings.aligned_with,
                              parameters={"folder": settings.bank} if settings.bank else {}))
    if settings.aligned_with != "center" and settings.mode != "layered":
        raise OptionError(f"aligned_with: mode {settings.mode} has its truth between the views; leave it at center, or "
                          "take mode layered")
    if not settings.families or settings.mode not in MODES or settings.bit_depth not in (8, 16):
        raise OptionError(f"a simulation needs a PSF family, a mode of {', '.join(MODES)} and a bit_depth of 8 "
                          f"or 16; found {settings.families}, {settings.mode!r}, {settings.bit_depth}")
    if count < 1 or min(settings.size) < 32 or settings.max_radius <= 0 or settings.radius_power < 1:
        raise OptionError("a simulation needs at least one scene, frames of 32 pixels, a positive max_radius and a "
                          f"radius_power of 1 or more; found {count}, {settings.size}, {settings.max_radius}, "
                          f"{settings.radius_power}")
    if settings.max_radius * 4 > min(settings.size):
        raise OptionError(f"max_radius {settings.max_radius} is more than a quarter of frames of "
                          f"{settings.size[0]} x {settings.size[1]}: nothing would be left to see")
    for name, low, high in (("separation", 0, 1), ("field_tilt", 0, 1), ("shrink", 1, 100), ("noise_scale", 0, 100),
                            ("exposure", 1 / 256, 4), ("sharpening", 0, 3), ("jpeg_quality", 10, 100)):
        first, last = getattr(settings, name)
        if not low <= first <= last <= high:
            raise OptionError(f"{name}: expected a range (from, to) within {low:.3g} to {high}, found "
                              f"{(first, last)}")
    for name in ("field_share", "flat_share", "smooth_share", "distortion_share", "procedural_share", "soft_share",
                 "vignetting_share", "exposure_share", "one_channel_share", "sharpening_share", "jpeg_share"):
        if not 0 <= getattr(settings, name) <= 1:
            raise OptionError(f"{name}: expected a share from 0 to 1, found {getattr(settings, name)}")
    for name in ("gain", "vignetting"):
        if not 0 <= getattr(settings, name) < 1:
            raise OptionError(f"{name}: expected a fraction from 0 to below 1, found {getattr(settings, name)}")
    if not (0 <= settings.shot < math.inf and 0 <= settings.read < math.inf):
        raise OptionError(f"noise cannot be negative or infinite; found shot {settings.shot}, read {settings.read}")
    if settings.frame is not None and any(f < s for f, s in zip(settings.frame, settings.size, strict=True)):
        raise OptionError(f"frame {settings.frame} must hold pictures of {settings.size}; give a larger frame, or none")


def draw_largest_radius(settings: SimulationSettings, random: np.random.Generator) -> float:
    """Draw the largest blur radius of one scene, in pixels."""
    if settings.radius_power == 1:
        return settings.max_radius
    return settings.max_radius * float(random.random()) ** (settings.radius_power - 1)


def draw_psf(settings: SimulationSettings, random: np.random.Generator) -> PsfSettings:
    """Draw a lens and sensor for one scene."""
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
    return PsfSettings(family=family, separation=float(random.uniform(*settings.separation)), parameters=parameters,
                       aligned_with=settings.aligned_with,
                       tilt=float(random.uniform(-0.4, 0.4)) if off_axis else 0.0,
                       aspect=float(random.uniform(0.85, 1.18)) if off_axis else 1.0,
                       field_tilt=float(random.uniform(*settings.field_tilt)) if settings.frame else 0.0)


def draw_sensor(settings: SimulationSettings, random: np.random.Generator) -> SensorSettings:
    """Draw a read-out and its development for one scene."""
    def drawn(share: float) -> bool:
        return bool(share) and random.random() < share

    # Opposite in the two views, so that their mean is as bright as the truth: a gain that both had could not be told
    # from light.
    first, second = random.uniform(-settings.gain, settings.gain, 2)
    gain = float(first - second) / 2
    ramp = float(random.uniform(-settings.vignetting, settings.vignetting)) if drawn(settings.vignetting_share) else 0.0
    least, most = settings.noise_scale
    noise = least if least == most else least + (most - least) * float(random.random()) ** 2
    exposure = float(np.exp2(random.uniform(*np.log2(settings.exposure)))) if drawn(settings.exposure_share) else 1.0
    return SensorSettings(
        gain=(1 + gain, 1 - gain), ramp=ramp, shot=settings.shot * noise, read=settings.read * noise,
        exposure=exposure, one_channel=drawn(settings.one_channel_share),
        sharpening=float(random.uniform(*settings.sharpening)) if drawn(settings.sharpening_share) else 0.0,
        jpeg_quality=int(random.integers(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1))
        if drawn(settings.jpeg_share) else None)


def draw_window(settings: SimulationSettings, random: np.random.Generator) -> FieldWindow | None:
    """Draw where in the frame a scene lies."""
    if settings.frame is None:
        return None
    top, left = (int(random.integers(whole - part + 1))
                 for whole, part in zip(settings.frame, settings.size, strict=True))
    return FieldWindow((settings.frame[0], settings.frame[1]), (top, left))


def draw_distortion(settings: SimulationSettings, random: np.random.Generator) -> tuple[float, ...] | None:
    """Draw the coefficients of a radial distortion, or None."""
    if not settings.distortion_share or random.random() >= settings.distortion_share:
        return None
    return CAMERAS[int(random.integers(len(CAMERAS)))].distortion
