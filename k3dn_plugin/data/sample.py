"""What a data set gives: sample keys, the index that asks for a sample, and a batch of samples.

| key         | value                                                                              |
|-------------|------------------------------------------------------------------------------------|
| `lq`        | (6, H, W) float32 in [0, 1]: left RGB, then right RGB                               |
| `center`    | (3, H, W) float32 in [0, 1]: the captured combined view, or the mean of the views   |
| `gt`        | (3, H, W) float32 in [0, 1]: the all-in-focus truth, where the data set has one     |
| `name`      | the scene                                                                          |
| `disparity` | (1, H, W) float32, where there is one: column in the right view minus in the left   |
| `defocus`   | (1, H, W) float32, where there is one: signed blur radius, units in the data set's card |
| `coc`       | (1, H, W) float32: the same in pixels, where that is its unit                       |
| `depth`     | (1, H, W) float32, where there is one, in the card's unit; NaN where it is not known |
| `window`    | (4,) int64, where crops lie: top, left, rows and columns of the frame               |

A batch has the same keys, tensors stacked on a new first axis and `name` a list.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import default_collate

from k3dn_plugin.errors import DataError, OptionError

IMAGE_KEYS = ("lq", "center", "gt")
MAP_KEYS = ("disparity", "defocus", "depth")


class SampleIndex(NamedTuple):
    """Asks a data set for sample `index` as it looks in `epoch`.

    `crop_size` (rows, columns) replaces the data set's own where a schedule changes it while training.
    """

    epoch: int
    index: int
    crop_size: tuple[int, int] | None = None


def random_source(*numbers: int) -> np.random.Generator:
    """Return a generator that depends on its arguments (seed, epoch, index, ...) alone, whichever process asks.

    Raises:
        OptionError: one of them is negative.
    """
    if min(numbers, default=0) < 0:
        raise OptionError(f"seed: expected whole numbers of at least 0, found {min(numbers)}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(numbers))))


def collate(samples: Sequence[dict]) -> dict:
    """Return a batch of samples.

    Raises:
        DataError: the samples have different keys, or images of different sizes.
    """
    first = samples[0]
    for sample in samples[1:]:
        if sample.keys() != first.keys():
            raise DataError(f"{first['name']} has {sorted(first)}, {sample['name']} has {sorted(sample)}: "
                            "a batch needs the same keys in every sample")
        for key, value in sample.items():
            if isinstance(value, torch.Tensor) and value.shape != first[key].shape:
                raise DataError(
                    f"{key} of {first['name']} is {tuple(first[key].shape)}, of {sample['name']} "
                    f"{tuple(value.shape)}: a batch needs one size. Set `crop_size`, or load one frame at "
                    "a time (batch_size_per_gpu: 1)")
    return default_collate(list(samples))
