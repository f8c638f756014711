"""K3DN's public evaluation: frames resized to 1152 x 1792, the output resized back."""
import math

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from k3dn_plugin.evaluation.protocols.base import VIEW_KEYS, EvaluationProtocol, check_sizes, map_images
from k3dn_plugin.registry import PROTOCOLS

FULL_SCALE = 65535


@PROTOCOLS.register_module(name="k3dn_resize")
class K3DNResize(EvaluationProtocol):
    """The score of network and two interpolations: input by OpenCV's bicubic at 16 bit, output by torch's.

    Frames of 1120 x 1680 become 1152 x 1792, which changes their aspect ratio, as published.
    For other sizes nothing is published; they go to the next multiple of 128, which gives that size too.
    The truth keeps its size, and so does the center view that is scored as doing nothing.
    """

    name = "k3dn_resize"
    source = "public inference code of K3DN (Yang et al., CVPR 2023)"
    reading = "16-bit frames, resized at 16 bit (saturated, rounded), divided by 65535"
    size = ("views resized by OpenCV bicubic to the next multiple of 128 (1152 x 1792 for 1120 x 1680), "
            "output resized back by torch bicubic without antialiasing")
    bit_depth = 16

    def prepare(self, sample: dict) -> dict:
        """Return the sample with resized views."""
        return {**map_images(sample, resized_views, VIEW_KEYS), "frame_size": tuple(sample["lq"].shape[-2:])}

    def finish(self, restored: torch.Tensor, sample: dict) -> torch.Tensor:
        """Return the output resized back."""
        size = sample["frame_size"] if sample.get("gt") is None else tuple(sample["gt"].shape[-2:])
        back = F.interpolate(restored.float()[None], size=size, mode="bicubic", align_corners=False)
        return back[0].clamp(0, 1)

    def do_nothing(self, sample: dict, prepared: dict) -> torch.Tensor:
        """Return the center view at its own size."""
        check_sizes(sample["center"], sample)
        return sample["center"].float().clamp(0, 1)


def resized_views(views: torch.Tensor) -> torch.Tensor:
    """Return (3V, H, W) in [0, 1] resized as 16-bit images to the next multiple of 128, back in [0, 1]."""
    rows, columns = (math.ceil(n / 128) * 128 for n in views.shape[-2:])
    levels = (views.double() * FULL_SCALE).round().clamp(0, FULL_SCALE).cpu().numpy().astype("uint16")
    resized = []
    for view in levels.reshape(-1, 3, *levels.shape[-2:]):
        # One color image at a time, as published: OpenCV rounds a single channel a little differently.
        frame = np.ascontiguousarray(view.transpose(1, 2, 0))
        frame = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_CUBIC)
        resized.append(torch.from_numpy(frame.astype(np.float32) / FULL_SCALE).permute(2, 0, 1))
    return torch.cat(resized).to(views.device)
