"""Scenes from pictures with depth: through our layers, or through a published simulator."""
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.simulation import dddnet, rdpd
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.layers import surfaces_from_depth
from k3dn_plugin.simulation.optics import blur_radius, blur_radius_from_disparity
from k3dn_plugin.simulation.pairs import photograph
from k3dn_plugin.simulation.radial import distort
from k3dn_plugin.simulation.settings import SimulationSettings, draw_distortion, draw_psf, draw_sensor
from k3dn_plugin.simulation.sources import RgbdPicture

KINDS = ("depth", "disparity")
REACH = 48  # pixels, more than half of the published simulators' largest kernels


@dataclass(frozen=True)
class RgbdSettings:
    """How depth becomes blur in mode "layered".

    Attributes:
        kind: what the maps hold: "depth" in metres, or "disparity" (larger is nearer).
        lens: (focal length, f-number, pixel pitch), lengths in millimetres; None scales each scene's inverse
            depth so that its most blurred point has a radius drawn up to `max_radius`.
        focus: distance in metres that is in focus; None draws a point of the scene.
    """

    kind: str = "depth"
    lens: tuple[float, float, float] | None = None
    focus: float | None = None

    def as_facts(self) -> dict[str, Any]:
        """Return the settings for a store's manifest."""
        return {"depth_kind": self.kind, "lens": None if self.lens is None else list(self.lens),
                "focus": self.focus}


def check_rgbd(settings: SimulationSettings, rgbd: RgbdSettings) -> None:
    """Raise `OptionError` for settings that contradict each other."""
    if rgbd.kind not in KINDS:
        raise OptionError(f"expected a kind of depth map of {', '.join(KINDS)}, found {rgbd.kind!r}")
    if rgbd.kind == "disparity" and (rgbd.lens or rgbd.focus or settings.mode != "layered"):
        raise OptionError("a lens, a focus distance and the modes rdpd and dddnet need depth in metres; the "
                          "maps are declared to be disparity")
    if rgbd.lens is not None and (min(rgbd.lens) <= 0 or len(rgbd.lens) != 3):
        raise OptionError(f"lens: expected focal length, f-number and pixel pitch above 0, found {rgbd.lens}")


def draw_rgbd_scene(picture: RgbdPicture, settings: SimulationSettings, rgbd: RgbdSettings,
                    random: np.random.Generator, *, whole: bool = False,
                    device: str = "cpu") -> dict[str, np.ndarray]:
    """Simulate the frames of a crop of `settings.size` somewhere in a picture, or of all of it (`whole`).

    The picture is the camera's frame: the axis meets its middle.

    Raises:
        DataError: the picture is smaller than the crop.
    """
    frame = (picture.photograph.shape[1], picture.photograph.shape[2])
    size = frame if whole else settings.size
    if size[0] > frame[0] or size[1] > frame[1]:
        raise DataError(f"{picture.name}: a picture of {frame[0]} x {frame[1]} is smaller than the frames to "
                        f"make, {size[0]} x {size[1]} (rows x columns). Set a smaller size")
    top, left = (int(random.integers(f - s + 1)) for f, s in zip(frame, size, strict=True))
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    if settings.mode != "layered":
        return _published(picture, rows, columns, settings, random)
    image, depth = picture.photograph[:, rows, columns], picture.depth[rows, columns]
    radius = _radii(depth, settings, rgbd, random)
    distortion = draw_distortion(settings, random) if whole else None
    psf, sensor = draw_psf(settings, random), draw_sensor(settings, random)
    image, radius = image.to(device), radius.to(device)
    surfaces = surfaces_from_depth(image, radius, thickness=2.0, aligned=True) if settings.fast else \
        surfaces_from_depth(image, radius)
    return photograph(surfaces, image, radius, psf, sensor, random,
                      window=FieldWindow(frame, (top, left)), distortion=distortion, fast=settings.fast,
                      bit_depth=settings.bit_depth)


def _radii(depth: torch.Tensor, settings: SimulationSettings, rgbd: RgbdSettings,
           random: np.random.Generator) -> torch.Tensor:
    """(H, W) signed blur radii, none beyond `max_radius`."""
    quantile, strength = random.random(), random.uniform(0.3, 1)
    in_focus = rgbd.focus or float(np.quantile(depth.numpy(), quantile))
    if rgbd.lens is None:
        nearness = depth if rgbd.kind == "disparity" else 1 / depth
        in_focus = in_focus if rgbd.kind == "disparity" else 1 / in_focus
        largest = strength * settings.max_radius
        return blur_radius_from_disparity(nearness, in_focus=in_focus, max_radius=largest)
    focal, number, pitch = rgbd.lens
    radius = blur_radius(1000 * depth, focal_length=focal, f_number=number, focus_distance=1000 * in_focus,
                         pixel_pitch=pitch)
    return radius.clamp(-settings.max_radius, settings.max_radius)


def _published(picture: RgbdPicture, rows: slice, columns: slice, settings: SimulationSettings,
               random: np.random.Generator) -> dict[str, np.ndarray]:
    """A camera and a setting of a published simulator; its views are 8-bit."""
    pixels = _eight_bits(picture.photograph.pixels())
    depth = picture.depth.numpy().astype(np.float64)
    distortion = None
    camera, psf = rdpd.CAMERAS[0], rdpd.PSF_BANK[0]
    if settings.mode == "rdpd":
        camera = rdpd.CAMERAS[int(random.integers(len(rdpd.CAMERAS)))]
        psf = rdpd.PSF_BANK[int(random.integers(len(rdpd.PSF_BANK)))]
        distortion = draw_distortion(settings, random) and camera.distortion
    else:
        depth = dddnet.dddnet_disparity(depth, dddnet.CAMERAS[int(random.integers(len(dddnet.CAMERAS)))])
    if distortion is None:
        # What lies further away than the largest kernel reaches need not be blurred.
        pixels, depth, rows, columns = _surroundings(pixels, depth, rows, columns)
    if settings.mode == "rdpd":
        frames = rdpd.render_rdpd(pixels, depth, camera, psf)
        frames["disparity"] = rdpd.rdpd_disparity(frames["defocus"], psf)
    else:
        frames = dddnet.render_dddnet(pixels, depth)
        # Two squares side by side: the distance of their middles is their side less one, which is |defocus|.
        frames["disparity"] = frames["defocus"].copy()
    frames["sharp"] = pixels
    if distortion is not None:
        frames = {view: _distorted(frame, distortion) for view, frame in frames.items()}
    frames = {view: np.ascontiguousarray(frame[rows, columns]) for view, frame in frames.items()}
    if settings.bit_depth == 16:
        frames = {view: frame.astype(np.uint16) * np.uint16(257) if frame.dtype == np.uint8 else frame
                  for view, frame in frames.items()}
    return frames


def _surroundings(pixels: np.ndarray, depth: np.ndarray, rows: slice,
                  columns: slice) -> tuple[np.ndarray, np.ndarray, slice, slice]:
    """The crop with `REACH` pixels around it, and where it lies in that."""
    around, inside = [], []
    for part, whole in zip((rows, columns), depth.shape, strict=True):
        first = max(part.start - REACH, 0)
        around.append(slice(first, min(part.stop + REACH, whole)))
        inside.append(slice(part.start - first, part.stop - first))
    return pixels[tuple(around)], depth[tuple(around)], inside[0], inside[1]


def _eight_bits(image: np.ndarray) -> np.ndarray:
    image = np.repeat(image, 3, 2) if image.shape[2] == 1 else image
    return image if image.dtype == np.uint8 else (image / 257).round().astype(np.uint8)


def _distorted(frame: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    if frame.ndim == 2:
        return distort(torch.from_numpy(frame)[None], coefficients, nearest=True)[0].numpy()
    image = torch.from_numpy(frame).permute(2, 0, 1).float()
    return distort(image, coefficients).round().permute(1, 2, 0).numpy().astype(np.uint8)
