"""A blur map made elsewhere: by CLIP, by hand, or measured with the data."""
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.array_files import read_array
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import read_file
from k3dn_plugin.modules.blur_map.stretch import stretched
from k3dn_plugin.registry import MODULES

SUFFIXES = (".png", ".npy")
LARGEST = 2 ** 30  # bytes of a file of maps
PNG_END = b"IEND\xaeB`\x82"


@MODULES.register_module()
class FileBlurMap(nn.Module):
    """The magnitude of a map that comes with the image, stretched over it, enlarged by its nearest pixels.

    A map of a training crop is cut and flipped with it, so training takes the sample's `defocus` alone; maps in files
    are for whole frames. Such are those of LDP's CLIP script for pairs, of one pixel for each 40 x 40 (0 in focus).

    Args:
        path: a file, which stands for every image; or a folder of files called like the samples; PNG of 8 or 16 bits,
            or .npy of (rows, columns). None takes `defocus` of the sample.
        inverted: more means less blur in the files, as in those of LDP's script for single images.
    """

    def __init__(self, *, path: str | None = None, inverted: bool = False) -> None:
        super().__init__()
        self.path, self.inverted = None if path is None else Path(path), inverted

    @property
    def needs_sample(self) -> bool:
        """Whether the pixels of a pair alone do not give its map."""
        return self.path is None or self.path.is_dir()

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) -> (B, 1, H, W) in [0, 1], from the one file of `path`.

        Raises:
            OptionError: the map is another for every sample.
            DataError: there is no such file, or it is damaged.
        """
        if self.path is None or self.needs_sample:
            source = "`defocus` of a sample" if self.path is None else f"a file of the folder {self.path}"
            raise OptionError(f"FileBlurMap: the map is {source}, and an image was given without its name. Give the "
                              "map to the restorer (`blur_map`), or set network_g.blur_map.path to its file")
        blur = self._read(self.path).to(lq)
        return F.interpolate(blur[None], size=lq.shape[-2:], mode="nearest").expand(lq.shape[0], -1, -1, -1)

    def of_sample(self, sample: Mapping[str, Any]) -> torch.Tensor:
        """Return the map of a sample of a whole frame, (1, rows, columns) in [0, 1].

        Raises:
            DataError: the sample has no `defocus`, or the folder no whole file for it.
        """
        if self.path is None:
            return self._of(sample, sample.get("name", "the sample"))
        if not self.path.is_dir():
            return self._read(self.path)
        if not sample.get("name"):
            raise DataError(f"FileBlurMap: {self.path} is a folder of maps, and the image has no name to find its "
                            "own by; set blur_map.path to the map's file")
        name = str(sample["name"]).replace("/", "_")
        found = [path for suffix in SUFFIXES if (path := self.path / f"{name}{suffix}").is_file()]
        if not found:
            raise DataError(f"{self.path}: no blur map of {sample['name']}; expected {name}.png or {name}.npy")
        return self._read(found[0])

    def content_hash(self) -> str:
        """Return the SHA-256 of the files of maps in hexadecimal; empty where maps are part of the data."""
        if self.path is None:
            return ""
        files = [self.path]
        if self.path.is_dir():
            files = sorted(path for path in self.path.iterdir() if path.suffix in SUFFIXES)
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.name.encode() + hashlib.sha256(read_file(path, most=LARGEST)).digest())
        return digest.hexdigest()

    def of_batch(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the maps of a batch of training crops, (B, 1, H, W) in [0, 1].

        Raises:
            OptionError: the maps are files, which do not follow crops and flips.
            DataError: the batch has no `defocus`.
        """
        if self.path is not None:
            raise OptionError(f"FileBlurMap.path {self.path}: files do not follow the crops and flips of training. "
                              "Store the maps with the data as `defocus` and set path to null")
        return self._of(batch, "the training batch")

    def _of(self, sample: Mapping[str, Any], what: str) -> torch.Tensor:
        if sample.get("defocus") is None:
            raise DataError(f"FileBlurMap: {what} has no `defocus` (it has {', '.join(sorted(sample))}). Choose data "
                            "with a defocus map, another blur map (DisparityBlurMap, CoCBlurMap), or for whole frames "
                            "a file or folder of maps (blur_map.path)")
        return stretched(sample["defocus"].abs())

    def _read(self, path: Path) -> torch.Tensor:
        """(1, rows, columns) in [0, 1] from a file."""
        if path.suffix == ".npy":
            values = read_array(path, "a blur map", most=LARGEST)
        else:
            import cv2  # heavy, and the other blur maps do without

            data = read_file(path, most=LARGEST)
            whole = not data.startswith(b"\x89PNG") or data.endswith(PNG_END)
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data and whole else None
        if values is None:
            raise DataError(f"{path}: not an image, or one that is cut off; copy it again")
        if values.ndim == 3:  # the same in all channels, as the published test script reads it
            values = values[..., 0]
        blur = torch.from_numpy(np.abs(values.astype(np.float32)))
        if blur.ndim != 2 or not blur.numel() or not blur.isfinite().all():
            raise DataError(f"{path}: expected finite values of (rows, columns), found {tuple(values.shape)}")
        return stretched(-blur if self.inverted else blur)[None]
