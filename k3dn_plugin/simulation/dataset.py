"""`SimulatedDualPixelDataset`: dual-pixel pairs made while they are asked for, from photographs or RGB-D."""
import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from k3dn_plugin.data.card import DatasetCard
from k3dn_plugin.data.images import FULL_SCALE
from k3dn_plugin.data.sample import SampleIndex
from k3dn_plugin.errors import DataError, DependencyError, OptionError
from k3dn_plugin.files import files_below
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.registry import DATASETS, PSF_FAMILIES
from k3dn_plugin.simulation.pairs import draw_scene, random_source
from k3dn_plugin.simulation.psf import MEASURED
from k3dn_plugin.simulation.rgbd import RgbdSettings, check_rgbd, draw_rgbd_scene
from k3dn_plugin.simulation.settings import DEFAULTS, SimulationSettings, check_settings
from k3dn_plugin.simulation.sources import Photographs, RgbdFolder, hash_of_files


@DATASETS.register_module()
class SimulatedDualPixelDataset(Dataset):
    """Samples (`data/sample.py`) with `disparity` and `defocus`, another scene for every epoch and index.

        dataset = SimulatedDualPixelDataset(photographs="my/photographs", length=1000, crop_size=256, max_radius=12)
        dataset[SampleIndex(epoch=0, index=5)]["lq"]      # (6, 256, 256), the same whoever asks

    A scene depends on (seed, epoch, index) alone. Its layers, lens, sensor and place in the frame are drawn
    from the ranges below; scenes are mirrored as they are drawn, so there is no augmentation to choose. As
    with stored data, a plain integer draws the epoch from torch's global generator.

    Args:
        photographs: folder of sharp photographs, or a store, whose sharp frames are taken; None takes those of
            scikit-image. With `depth`, a folder of pictures, or one that holds both (`simulation/sources.py`).
        depth: folder of depth files for `photographs`, "inside" if `photographs` holds both; None makes depth up.
        depth_kind: "depth" in metres or "disparity".
        depth_scale: what the numbers of depth files are divided by; None: 1000 for PNG and TIFF, else 1.
        length: samples an epoch.
        fixed: the same scenes in every epoch, as for validation.
        crop_size: (rows, columns), or one number for both.
        max_radius: largest blur radius in pixels.
        radius_power: 1 gives all scenes that largest radius; 2 draws each scene's own evenly up to it, larger numbers
            make most of them small.
        mode: "layered", or the published simulators "rdpd" and "dddnet" (with depth in metres alone).
        families: PSF families to draw from, all of them if None.
        bank: folder of measured kernels, for the family "measured".
        separation: range of the share of the ideal separation between the views.
        aligned_with: "center" (the picture of the whole aperture) or "left": where the truth shows the scene from.
        frame: (rows, columns) of the imagined frame that crops lie in: kernels are uneven, views vignetted
            and crops distorted according to their place; None puts every crop on the axis.
        field_tilt: range of that unevenness at the frame's edge.
        field_share: share of scenes with uneven apertures besides.
        distortion_share: share of scenes with radial distortion.
        flat_share, smooth_share: shares of scenes at one distance, and on one hilly or folded surface.
        shrink: range of the factor by which photographs are made smaller, against their own blur.
        procedural_share: share of surfaces that show drawn pictures (dead leaves, polygons, text, gratings).
        soft_share: share of surfaces whose picture is soft in itself, which only the disparity tells from defocus.
        shot, read: noise of photons and of reading, of full scale.
        noise_scale: range of the factor of both; most scenes are drawn near its lower end.
        gain: largest deviation of a view's gain from 1, opposite in the two; 0.1 lets them differ by up to 20 %.
        vignetting, vignetting_share: largest brightness ramp from the middle to an edge, the views the opposite way,
            and share of scenes with one.
        exposure, exposure_share: range of the factor on all light, the truth's too, and share of scenes with it.
        one_channel_share: share of scenes taken with the green channel alone.
        sharpening, sharpening_share: range of the amount of the camera's unsharp mask, and share of scenes with it.
        jpeg_quality, jpeg_share: range of the quality of JPEG files, and share of scenes whose views went through one.
        bit_depth: of the numbers that a sample's are rounded to.
        seed: of the random choices.
        device: where scenes are rendered, e.g. "cuda"; with a GPU, load without workers. Samples are on the
            CPU.
        photos, split: former names of `photographs` and `separation`.

    Raises:
        DataError: photographs or depth are missing, or do not belong together.
        OptionError: a setting is out of range or contradicts another.
    """

    def __init__(self, *, photographs: str | None = None, depth: str | None = None,
                 depth_kind: Literal["depth", "disparity"] = "depth", depth_scale: float | None = None,
                 length: int = 1000, fixed: bool = False, crop_size: int | tuple[int, int] = 256,
                 max_radius: float = DEFAULTS.max_radius, radius_power: float = DEFAULTS.radius_power,
                 mode: Literal["layered", "rdpd", "dddnet"] = DEFAULTS.mode,
                 families: tuple[str, ...] | None = None, bank: str | None = None,
                 separation: tuple[float, float] = DEFAULTS.separation,
                 aligned_with: Literal["center", "left"] = DEFAULTS.aligned_with,
                 frame: tuple[int, int] | None = DEFAULTS.frame,
                 field_tilt: tuple[float, float] = DEFAULTS.field_tilt, field_share: float = DEFAULTS.field_share,
                 distortion_share: float = DEFAULTS.distortion_share, flat_share: float = DEFAULTS.flat_share,
                 smooth_share: float = DEFAULTS.smooth_share, shrink: tuple[float, float] = DEFAULTS.shrink,
                 procedural_share: float = DEFAULTS.procedural_share, soft_share: float = DEFAULTS.soft_share,
                 shot: float = DEFAULTS.shot, read: float = DEFAULTS.read,
                 noise_scale: tuple[float, float] = DEFAULTS.noise_scale,
                 gain: float = DEFAULTS.gain, vignetting: float = DEFAULTS.vignetting,
                 vignetting_share: float = DEFAULTS.vignetting_share,
                 exposure: tuple[float, float] = DEFAULTS.exposure, exposure_share: float = DEFAULTS.exposure_share,
                 one_channel_share: float = DEFAULTS.one_channel_share,
                 sharpening: tuple[float, float] = DEFAULTS.sharpening,
                 sharpening_share: float = DEFAULTS.sharpening_share,
                 jpeg_quality: tuple[int, int] = DEFAULTS.jpeg_quality, jpeg_share: float = DEFAULTS.jpeg_share,
                 bit_depth: Literal[8, 16] = DEFAULTS.bit_depth, seed: int = 0, device: str = "cpu",
                 photos: str | None = None, split: tuple[float, float] | None = None) -> None:
        photographs = photographs if photos is None else photos
        families = tuple(families or PSF_FAMILIES.names() + [MEASURED] * (bank is not None))
        self.seed, self.length, self.fixed, self.device = seed, length, fixed, device
        self.settings = SimulationSettings(
            size=(crop_size, crop_size) if isinstance(crop_size, int) else (crop_size[0], crop_size[1]),
            max_radius=max_radius, radius_power=radius_power, mode=mode, families=families, bank=bank,
            separation=_range(split or separation), aligned_with=aligned_with, frame=frame and (frame[0], frame[1]),
            field_tilt=_range(field_tilt), field_share=field_share, distortion_share=distortion_share,
            flat_share=flat_share, smooth_share=smooth_share, shrink=_range(shrink),
            procedural_share=procedural_share, soft_share=soft_share, shot=shot, read=read,
            noise_scale=_range(noise_scale), gain=gain, vignetting=vignetting, vignetting_share=vignetting_share,
            exposure=_range(exposure), exposure_share=exposure_share, one_channel_share=one_channel_share,
            sharpening=_range(sharpening), sharpening_share=sharpening_share, jpeg_quality=_range(jpeg_quality),
            jpeg_share=jpeg_share, bit_depth=bit_depth, fast=True)
        check_settings(self.settings, length)
        self._rgbd = RgbdSettings(kind=depth_kind)
        check_rgbd(self.settings, self._rgbd)
        if depth is None and (mode != "layered" or depth_scale is not None):
            raise OptionError(f"mode {mode} and depth_scale need pictures with depth: give `depth` (a folder, "
                              "or \"inside\")")
        _check_device(device)
        if depth is None:
            self._photos = Photographs(photographs)
        elif photographs is None:
            raise OptionError("depth: give `photographs` too, the folder of the pictures that it belongs to")
        else:
            self._photos = RgbdFolder(photographs, None if depth == "inside" else depth, scale=depth_scale)

    @functools.cached_property
    def card(self) -> DatasetCard:
        """What this data set declares of itself."""
        facts = {**self.settings.as_facts(), "seed": self.seed, "fixed": self.fixed, "pictures": len(self._photos)}
        return DatasetCard(
            name="simulated", bit_depth=self.settings.bit_depth, linear=False, disparity_axis="x",
            center="mean", truth=True, maps={m: facts[f"{m}_unit"] for m in ("disparity", "defocus")},
            augment="none", facts=facts)

    def fingerprint(self) -> str:
        """Return what decides the samples, in one text: all settings and the content of photographs, depth and bank."""
        bank = "" if self.settings.bank is None else hash_of_files(files_below(self.settings.bank))
        facts = {**asdict(self.settings), "bank": bank, "rgbd": asdict(self._rgbd),
                 "seed": self.seed, "length": self.length, "fixed": self.fixed,
                 "pictures": self._photos.content_hash()}
        return json.dumps(facts, sort_keys=True, default=str)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int | SampleIndex) -> dict[str, Any]:
        if not isinstance(index, SampleIndex):
            index = SampleIndex(0 if self.fixed else int(torch.randint(2**31, ())), int(index))
        number = index.index + len(self) if index.index < 0 else index.index
        if not 0 <= number < len(self):
            raise IndexError(f"simulated data set: sample {index.index} of {len(self)}")
        epoch = 0 if self.fixed else index.epoch
        frames = self._simulate(epoch, number, index.crop_size)
        lq = torch.from_numpy(np.concatenate([_floats(frames["left"]), _floats(frames["right"])]))
        maps = {m: torch.from_numpy(frames[m])[None] for m in ("disparity", "defocus")}
        return {"lq": lq, "name": f"simulated_{epoch}_{number:06d}", "center": mean_of_views(lq),
                "gt": torch.from_numpy(_floats(frames["sharp"])),
                **maps, "coc": maps["defocus"]}

    def _simulate(self, epoch: int, index: int, crop_size: tuple[int, int] | None) -> dict[str, np.ndarray]:
        settings = self._sized(crop_size)
        random = random_source(self.seed, epoch, index)
        with one_thread():
            if isinstance(self._photos, Photographs):
                return draw_scene(self._photos, settings, random, device=self.device)
            picture = self._photos[int(random.integers(len(self._photos)))]
            return draw_rgbd_scene(picture, settings, self._rgbd, random, device=self.device)

    def _sized(self, crop_size: tuple[int, int] | None) -> SimulationSettings:
        """The settings for the crops of a schedule."""
        if crop_size is None or tuple(crop_size) == self.settings.size:
            return self.settings
        settings = replace(self.settings, size=tuple(crop_size))
        try:
            check_settings(settings)
        except OptionError as error:
            raise DataError(f"a simulated scene cannot have {crop_size} pixels: {error}") from None
        return settings


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread.

    Fourier transforms on several give other last bits, and a sample must not depend on whether a worker (one
    thread) or the main process (several) makes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _floats(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) stored numbers as (3, H, W) floats in [0, 1]."""
    return np.divide(np.ascontiguousarray(frame.transpose(2, 0, 1)), np.float32(FULL_SCALE[frame.dtype.name]),
                     dtype=np.float32)


def _range(values: Sequence) -> tuple:
    """A range from an option file, which is a list there."""
    return tuple(values)


def _check_device(device: str) -> None:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise DependencyError(f"device {device!r}: PyTorch sees no GPU here; set device: cpu")
