"""Protocols that read or score 8-bit copies of the frames: BasicSR's, IFAN's, DRBNet's, INIKNet's, DDDNet's."""
import math

import torch
from torch.nn import functional as F

from k3dn_plugin.evaluation.protocols.base import VIEW_KEYS, EvaluationProtocol, map_images
from k3dn_plugin.registry import PROTOCOLS

IMAGE_KEYS = (*VIEW_KEYS, "gt")


def high_byte(image: torch.Tensor) -> torch.Tensor:
    """Return an image in [0, 1] as OpenCV's 8-bit reading of its 16-bit file: the low byte dropped, /255."""
    return (image.double() * 65535).round().div(256, rounding_mode="floor").clamp(0, 255).div(255).float()


def rounded_to_bytes(image: torch.Tensor) -> torch.Tensor:
    """Return an image clamped to [0, 1] and rounded to 8 bits, in [0, 1]."""
    return (image.float().clamp(0, 1) * 255).round() / 255


@PROTOCOLS.register_module(name="basicsr_uint8")
class BasicSRUint8(EvaluationProtocol):
    """BasicSR's validation: output and truth rounded to 8 bits, its own SSIM, infinity where identical."""

    name = "basicsr_uint8"
    source = "BasicSR 1.4 (calculate_psnr and calculate_ssim without border, in RGB)"
    output = "clamped to [0, 1], rounded to 8 bits; the truth too"
    metrics = {"psnr": {"identical": math.inf}, "ssim_gaussian11": {}, "mae": {}}

    def prepare(self, sample: dict) -> dict:
        """Return the sample with frames as the authors read them."""
        return map_images(sample, rounded_to_bytes, ("gt",))

    def finish(self, restored: torch.Tensor, sample: dict) -> torch.Tensor:
        """Return the output rounded to 8 bits."""
        return rounded_to_bytes(super().finish(restored, sample))


class _EightBitCropped(EvaluationProtocol):
    """Views and truth read as 8 bits and cropped at the bottom and right to a multiple."""

    multiple = 1

    def prepare(self, sample: dict) -> dict:
        """Return the sample with frames as the authors read them."""
        return map_images(sample, lambda image: cropped(high_byte(image), self.multiple), IMAGE_KEYS)


@PROTOCOLS.register_module(name="ifan8")
class IFAN8(_EightBitCropped):
    """IFAN's (CVPR 2021), 8-bit configuration: crop to multiples of 8, float output."""

    name = "ifan8"
    source = "IFAN (Lee et al., CVPR 2021), 8-bit configuration"
    reading = "high byte of 16-bit frames (no rounding), divided by 255; the truth too"
    size = "bottom and right cropped to a multiple of 8"
    multiple = 8


@PROTOCOLS.register_module(name="drbnet8")
class DRBNet8(_EightBitCropped):
    """DRBNet's (CVPR 2022): as IFAN's, crop to multiples of 16."""

    name = "drbnet8"
    source = "DRBNet (Ruan et al., CVPR 2022)"
    reading = "high byte of 16-bit frames (no rounding), divided by 255; the truth too"
    size = "bottom and right cropped to a multiple of 16"
    multiple = 16


@PROTOCOLS.register_module(name="iniknet8")
class INIKNet8(_EightBitCropped):
    """INIKNet's (ICCV 2023): as IFAN's, crop to multiples of 32, so that 16 columns of a DPDD frame do not count."""

    name = "iniknet8"
    source = "INIKNet (Quan et al., ICCV 2023)"
    reading = "high byte of 16-bit frames (no rounding), divided by 255; the truth too"
    size = "bottom and right cropped to a multiple of 32"
    multiple = 32


@PROTOCOLS.register_module(name="dddnet_half")
class DDDNetHalf(EvaluationProtocol):
    """DDDNet's headline figure: 8-bit frames at half resolution.

    How the authors reduced the frames is not published; the mean of 2 x 2 pixels is our assumption.
    """

    name = "dddnet_half"
    source = "DDDNet (Pan et al., CVPR 2021), its half-resolution figure"
    reading = "high byte of 16-bit frames (no rounding), divided by 255; the truth too"
    size = "views and truth reduced to half by the mean of 2 x 2 pixels (assumed), odd edges cropped"
    metrics = {"psnr": {}, "ssim_uniform7": {}, "mae": {}, "relative_rmse": {}}

    def prepare(self, sample: dict) -> dict:
        """Return the sample with frames as the authors read them."""
        return map_images(sample, lambda image: halved(high_byte(image)), IMAGE_KEYS)


@PROTOCOLS.register_module(name="dddnet8")
class DDDNet8(EvaluationProtocol):
    """DDDNet's figure at full resolution: 8-bit frames, clamped floats, and the relative RMSE of its tables.

    Its script runs the networks in training mode, so that batch norm uses each image's own statistics; which SSIM the
    figure has is not known.
    """

    name = "dddnet8"
    source = "DDDNet (Pan et al., CVPR 2021), its public script for full resolution"
    reading = "high byte of 16-bit frames (no rounding), divided by 255; the truth too"
    metrics = {"psnr": {}, "ssim_uniform7": {}, "mae": {}, "relative_rmse": {}}

    def prepare(self, sample: dict) -> dict:
        """Return the sample with frames of 8 bits."""
        return map_images(sample, high_byte, IMAGE_KEYS)


@PROTOCOLS.register_module(name="deeprft8")
class DeepRFT8(EvaluationProtocol):
    """DeepRFT's (AAAI 2023): 8-bit frames, the output rounded to 8 bits.

    The authors publish no evaluation on DPDD; this is theirs of motion blur. Their PSNR is scikit-image's at 255, which
    is that of rounded values over 255.
    """

    name = "deeprft8"
    source = "DeepRFT (Mao et al., AAAI 2023), its evaluation of motion blur; none is published for DPDD"
    reading = "high byte of 16-bit frames (no rounding), divided by 255; the truth too"
    output = "clamped to [0, 1], rounded to 8 bits"
    metrics = {"psnr": {}, "ssim_gaussian11": {}, "mae": {}}

    def prepare(self, sample: dict) -> dict:
        """Return the sample with frames of 8 bits."""
        return map_images(sample, high_byte, IMAGE_KEYS)

    def finish(self, restored: torch.Tensor, sample: dict) -> torch.Tensor:
        """Return the output rounded to 8 bits."""
        return rounded_to_bytes(super().finish(restored, sample))


def cropped(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return (C, H, W) without the bottom rows and right columns beyond a multiple."""
    rows, columns = (n // multiple * multiple for n in image.shape[-2:])
    return image[..., :rows, :columns]


def halved(image: torch.Tensor) -> torch.Tensor:
    """(C, H, W) at half size: the mean of each 2 x 2 pixels."""
    return F.avg_pool2d(image[None], 2)[0]
