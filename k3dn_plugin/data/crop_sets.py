"""The published patch filters: which crops of a frame are sharp enough to be trained on.

DPDNet (Abuolaim and Brown, ECCV 2020) cuts frames into overlapping patches and drops the least sharp; Restormer
(Zamir et al., CVPR 2022) does the same. A store keeps the origins of the patches in place of copies of them.
"""
from dataclasses import dataclass

import cv2
import numpy as np

SOBEL_SIZES = (3, 7, 11, 15)


@dataclass(frozen=True)
class PatchFilter:
    """How a frame is cut and which patches stay.

    Args:
        size: side of the square patches.
        stride: between neighbors; one more row and column of patches is flush with the far edges. None takes
            the one patch in the middle.
        drop: share of a frame's patches that is dropped, the least sharp.
    """

    size: int
    stride: int | None
    drop: float = 0.0

    def facts(self) -> dict:
        """Return what the manifest says of the filter."""
        return {"size": [self.size, self.size], "stride": self.stride, "drop": self.drop}

    def origins(self, sharp: np.ndarray) -> list[list[int]]:
        """Return `[row, column]` of the patches of a frame (H, W, channels) that stay; none if it is smaller."""
        height, width = sharp.shape[:2]
        if min(height, width) < self.size:
            return []
        if self.stride is None:
            return [[(height - self.size) // 2, (width - self.size) // 2]]
        places = [[row, column] for row in _starts(height, self.size, self.stride)
                  for column in _starts(width, self.size, self.stride)]
        return drop_least_sharp(sharp, places, self.size, self.drop)


# By set and split.
PUBLISHED = {
    "train": {"dpdnet": PatchFilter(512, 204, 0.3), "restormer": PatchFilter(512, 204, 0.3)},
    "val": {"dpdnet": PatchFilter(512, 506), "restormer": PatchFilter(256, None)},
}


def drop_least_sharp(sharp: np.ndarray, places: list[list[int]], size: int, share: float) -> list[list[int]]:
    """Return the places without the floor(share n) of the least sharpness, in their order."""
    count = int(share * len(places))
    if not count:
        return places
    scores = sharpness(sharp, places, size)
    dropped = set(np.argsort(scores, kind="stable")[:count].tolist())
    return [place for number, place in enumerate(places) if number not in dropped]


def sharpness(sharp: np.ndarray, places: list[list[int]], size: int) -> np.ndarray:
    """Return the published score of each patch: the product over Sobel sizes of its gradient energies.

    Energies, each scaled to [0, 1], are sums of gradient magnitudes of the gray patch alone, at its own bit depth.
    """
    grey = sharp[..., 0] if sharp.shape[2] == 1 else cv2.cvtColor(np.ascontiguousarray(sharp), cv2.COLOR_RGB2GRAY)
    product = np.ones(len(places))
    for sobel in SOBEL_SIZES:
        energies = []
        for row, column in places:
            patch = grey[row:row + size, column:column + size]
            across, down = (cv2.Sobel(patch, cv2.CV_64F, *order, ksize=sobel) for order in ((1, 0), (0, 1)))
            energies.append(cv2.magnitude(across, down).sum())
        energies = np.asarray(energies)
        spread = np.ptp(energies)
        # Patches that are all alike cannot be told apart; the published formula would divide by zero.
        product *= (energies - energies.min()) / spread if spread else 1.0
    return product


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    return starts if starts[-1] == length - size else [*starts, length - size]
