"""Sharp photographs to make scenes from."""
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from k3dn_plugin.data.images import read_image, to_float
from k3dn_plugin.data.listing import list_files
from k3dn_plugin.errors import DataError, DependencyError
from k3dn_plugin.simulation.color import srgb_to_linear

ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
# Photographs that lie inside scikit-image's wheel (its other pictures are drawings, or would be downloaded).
# The motorcycle pair is left out: it is the held-out scene.
BUNDLED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "brick.png", "grass.png",
           "gravel.png")


def photographs_in(folder: str | Path) -> list[Path]:
    """Return the image files below a folder, sorted.

    Raises:
        DataError: the folder is missing or holds none.
    """
    folder = Path(folder)
    found = list_files(folder, sorted(ENDINGS), below=True) if folder.is_dir() else []
    if not found:
        raise DataError(f"{folder}: expected a folder of photographs ({', '.join(sorted(ENDINGS))}), found "
                        f"{'none in it' if folder.is_dir() else 'no such folder'}. Give a folder of your own, or "
                        "make that of the recipes: k3dn photographs --source DIR (datasets/photographs/README.md)")
    return found


def bundled_folder() -> Path:
    """Return where the installed scikit-image keeps its pictures."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise DependencyError("the demo's photographs lie in scikit-image, which is not installed: "
                              "pip install scikit-image")
    return Path(found.origin).parent / "data"


def bundled_photographs() -> list[Path]:
    """Return the photographs of the demo."""
    folder = bundled_folder()
    missing = [name for name in BUNDLED if not (folder / name).is_file()]
    if missing:
        raise DependencyError(f"{folder} lacks {', '.join(missing)}: this scikit-image is not the tested one; "
                              "pip install -r requirements/pinned.txt")
    return [folder / name for name in BUNDLED]


def load_linear(path: str | Path) -> torch.Tensor:
    """Read a photograph as (3, H, W) linear light in [0, 1]."""
    return srgb_to_linear(torch.from_numpy(to_float(read_image(path))).permute(2, 0, 1).contiguous())


class Sliced(Protocol):
    """What gives (3, H, W) linear light of a part of a picture, as `sources.Photograph` does."""

    shape: tuple[int, int, int]

    def __getitem__(self, part: tuple[slice, slice, slice]) -> torch.Tensor: ...


def random_tile(photo: "torch.Tensor | Sliced", size: tuple[int, int], random: np.random.Generator, *,
                shrink: tuple[float, float] = (1.0, 2.0)) -> torch.Tensor:
    """Cut a (3, *size) piece out of a photograph, shrunk by a random factor, perhaps mirrored.

    Shrinking takes the camera's own blur and compression away. A photograph that is too small for `size`
    is enlarged no further than it must be.
    """
    height, width = photo.shape[-2:]
    most = min(height / size[0], width / size[1])
    factor = min(random.uniform(*shrink), most)
    rows, columns = (min(round(s * factor), full) for s, full in zip(size, (height, width), strict=True))
    top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
    piece = photo[slice(None), slice(top, top + rows), slice(left, left + columns)]
    if random.random() < 0.5:
        piece = piece.flip(-1)
    # Area averaging keeps linear light and makes no rings.
    resized = cv2.resize(piece.permute(1, 2, 0).contiguous().numpy(), (size[1], size[0]),
                         interpolation=cv2.INTER_AREA if factor >= 1 else cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1).contiguous()
