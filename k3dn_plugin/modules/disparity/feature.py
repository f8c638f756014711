"""What a disparity module hands to a deblur module."""
from dataclasses import dataclass

import torch

from k3dn_plugin.errors import SizeError


@dataclass(frozen=True)
class DisparityFeature:
    """One vector per window of the image.

    Attributes:
        vectors: (B * rows * columns, D), ordered by image, then row, then column of the window.
        grid: (rows, columns) of windows in one image.
    """

    vectors: torch.Tensor
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.vectors.ndim != 2 or self.vectors.shape[0] % (rows * columns):
            raise SizeError(f"disparity vectors: expected (B * {rows} * {columns}, D), found "
                            f"{tuple(self.vectors.shape)}")

    @property
    def images(self) -> int:
        """The batch size."""
        return self.vectors.shape[0] // (self.grid[0] * self.grid[1])

    def as_map(self) -> torch.Tensor:
        """Return the vectors as an image, (B, D, rows, columns)."""
        rows, columns = self.grid
        return self.vectors.view(self.images, rows, columns, -1).permute(0, 3, 1, 2)


def check_images(features: torch.Tensor, disparity: DisparityFeature) -> None:
    """Raise `SizeError` unless features and disparity belong to equally many images."""
    if features.shape[0] != disparity.images:
        raise SizeError(f"{features.shape[0]} images of features, but disparity vectors of "
                        f"{disparity.images}: every window needs its own vector")
