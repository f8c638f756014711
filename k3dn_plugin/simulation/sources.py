"""What scenes are made from: photographs, the sharp frames of a store, and pictures with depth.

All are read when they are needed, by the process that needs them, and the last ones stay in memory.
"""
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cachetools import LRUCache

from k3dn_plugin.data.depth_files import SUFFIXES, read_depth
from k3dn_plugin.data.images import FULL_SCALE, read_image
from k3dn_plugin.data.listing import list_files, stem
from k3dn_plugin.data.store import BasicSRStore, LmdbStore, open_store
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import file_hash
from k3dn_plugin.simulation.color import srgb_to_linear
from k3dn_plugin.simulation.layers import fill_holes
from k3dn_plugin.simulation.photographs import ENDINGS, bundled_photographs, photographs_in

MEMORY = 2 ** 29  # bytes of decoded pictures that a process keeps
COLOR_FOLDERS = ("rgb", "image", "images", "color", "RGBLeft")
DEPTH_FOLDERS = ("depth", "depths", "disparity", "DepthLeft")


class Photograph:
    """Pixels in the curve of their file; a slice `[:, rows, columns]` of it is (3, H, W) linear light."""

    def __init__(self, shape: tuple[int, int], read: Callable[[slice, slice], np.ndarray],
                 linear: bool = False) -> None:
        self.shape, self._read, self._linear = (3, *shape), read, linear

    def __getitem__(self, part: tuple[slice, slice, slice]) -> torch.Tensor:
        _, rows, columns = part
        piece = self._read(rows, columns)
        piece = np.broadcast_to(piece, (*piece.shape[:2], 3)) if piece.shape[2] == 1 else piece
        if piece.dtype == np.float32:
            light = torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1)))
            return light if self._linear else srgb_to_linear(light)
        light = _curve(piece.dtype.name, self._linear)[piece]
        return torch.from_numpy(np.ascontiguousarray(light.transpose(2, 0, 1)))

    def pixels(self) -> np.ndarray:
        """Return (H, W, 3) as the file has them."""
        return self._read(slice(None), slice(None))


class Photographs:
    """A folder of photographs, a list of files or the sharp frames of a store, as a sequence of `Photograph`.

    Args:
        source: the folder, store or list; None takes scikit-image's photographs.

    Raises:
        DataError: nothing of the kind is there.
    """

    def __init__(self, source: str | Path | Sequence[str | Path] | None = None) -> None:
        self.store: LmdbStore | BasicSRStore | None = None
        self._cache = _Cache()
        if source is not None and not isinstance(source, (str, Path)):
            self.names = [str(path) for path in source]
        elif source is None:
            self.names = [str(path) for path in bundled_photographs()]
        elif Path(source).suffix == ".lmdb":
            self.store = open_store(source)
            self.names = [n for n in self.store.names if "sharp" in self.store.scene(n).views]
            if not self.names:
                raise DataError(f"{source}: no scene of this store has a sharp frame to make scenes from")
        else:
            self.names = [str(path) for path in photographs_in(source)]

    def __len__(self) -> int:
        return len(self.names)

    def content_hash(self) -> str:
        """Return a fingerprint of the pictures' content, the same wherever they lie."""
        return self.store.hash if self.store is not None else hash_of_files([Path(name) for name in self.names])

    def __getitem__(self, index: int) -> Photograph:
        name, store = self.names[index], self.store
        if store is None:
            image = self._cache.load(name, lambda: read_image(name, gray=True))
            return Photograph(image.shape[:2], lambda rows, columns: image[rows, columns])
        return Photograph(store.scene(name).size, lambda rows, columns: store.read(name, "sharp", rows, columns),
                          store.manifest.facts["linear"])


class RgbdPicture(NamedTuple):
    """A sharp picture and (H, W) float32 depth in metres, or disparity, given everywhere."""

    name: str
    photograph: Photograph
    depth: torch.Tensor


class RgbdFolder:
    """Pictures with depth, as a sequence of `RgbdPicture`.

    Args:
        source: a folder with one folder of pictures (rgb, image, images, color, RGBLeft) and one of depth
            (depth, depths, disparity, DepthLeft); or the folder of pictures, with `depth`.
        depth: the folder of depth files, of the same names.
        scale: what its numbers are divided by (`read_depth`).
        encoding: "plain" or "synthia"; SYNTHIA-SF is known by its folders' names.

    Raises:
        DataError: a folder is missing or empty; a picture has no depth, or depth no picture.
    """

    def __init__(self, source: str | Path, depth: str | Path | None = None, *, scale: float | None = None,
                 encoding: str = "plain") -> None:
        rgb, depth = (Path(source), Path(depth)) if depth is not None else _two_folders(Path(source))
        self.scale, self.encoding = scale, "synthia" if depth.name == "DepthLeft" else encoding
        self._files = _paired(rgb, depth)
        self._cache = _Cache()
        self.names = [name for name, _, _ in self._files]

    def __len__(self) -> int:
        return len(self._files)

    def content_hash(self) -> str:
        """Return a fingerprint of pictures and depth, the same wherever they lie."""
        files = hash_of_files([path for _, *paths in self._files for path in paths])
        return f"{files} {self.scale} {self.encoding}"

    def __getitem__(self, index: int) -> RgbdPicture:
        name, rgb, depth = self._files[index]
        image, known = self._cache.load(name, lambda: self._load(rgb, depth))
        return RgbdPicture(name, Photograph(image.shape[:2], lambda rows, columns: image[rows, columns]), known)

    def _load(self, rgb: Path, path: Path) -> tuple[np.ndarray, torch.Tensor]:
        image = read_image(rgb, gray=True)
        if image.shape[2] == 1 and image.dtype == np.uint16:
            raise DataError(f"{rgb}: expected a photograph, found one channel of 16 bits, as depth has. Are "
                            "the folders of photographs and of depth exchanged?")
        depth = read_depth(path, scale=self.scale, encoding=self.encoding)
        if depth.shape != image.shape[:2]:
            raise DataError(f"{path}: depth of {depth.shape} pixels for a picture of {image.shape[:2]} "
                            f"({rgb}); they must agree")
        known = np.isfinite(depth)
        if known.mean() < 0.25:
            raise DataError(f"{path}: depth is known in {known.mean():.0%} of the pixels only; at least a "
                            "quarter is needed. Is it the right file, and of the right encoding?")
        filled = fill_holes(torch.from_numpy(np.where(known, depth, 0).astype(np.float32))[None],
                            torch.from_numpy(known[None].astype(np.float32)))[0]
        return image, filled


def hash_of_files(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' names and contents, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{Path(path).name} {file_hash(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class _Cache(LRUCache):
    """The last values by key, up to `MEMORY` bytes; not sent to other processes."""

    def __init__(self) -> None:
        super().__init__(MEMORY, getsizeof=_size)

    def __reduce__(self) -> tuple[type, tuple]:
        return _Cache, ()

    def load(self, key: object, load: Callable[[], Any]) -> Any:
        """Return the value of `key`, loaded where it is not kept."""
        if key in self:
            return self[key]
        value = load()
        if self.getsizeof(value) <= self.maxsize:
            self[key] = value
        return value


def _size(value: Any) -> int:
    return sum(map(_size, value)) if isinstance(value, tuple) else value.nbytes


_curves: dict[tuple[str, bool], np.ndarray] = {}


def _curve(dtype: str, linear: bool) -> np.ndarray:
    """Linear light of every number of an integer dtype."""
    if (dtype, linear) not in _curves:
        top = FULL_SCALE[dtype]
        values = torch.from_numpy(np.arange(top + 1, dtype=np.float32) / np.float32(top))
        _curves[dtype, linear] = (values if linear else srgb_to_linear(values)).numpy()
    return _curves[dtype, linear]


def _two_folders(source: Path) -> tuple[Path, Path]:
    found = [[source / n for n in names if (source / n).is_dir()] for names in (COLOR_FOLDERS, DEPTH_FOLDERS)]
    if not all(found):
        there = ", ".join(f[0].name for f in found if f) or "neither"
        raise DataError(f"{source}: expected a folder of pictures ({', '.join(COLOR_FOLDERS)}) and one of "
                        f"depth ({', '.join(DEPTH_FOLDERS)}), found {there}. Or give both folders")
    return found[0][0], found[1][0]


def _paired(rgb: Path, depth: Path) -> list[tuple[str, Path, Path]]:
    """(name, picture, depth file), sorted."""
    files = []
    for folder, endings, what in ((rgb, ENDINGS, "pictures"), (depth, SUFFIXES, "depth files")):
        found = {}
        for path in list_files(folder, sorted(endings)) if folder.is_dir() else ():
            if stem(path) in found:
                raise DataError(f"{folder}: two files are called {stem(path)}: {found[stem(path)].name} and "
                                f"{path.name}; leave one")
            found[stem(path)] = path
        if not found:
            raise DataError(f"{folder}: expected {what} ({', '.join(sorted(endings))}), found "
                            f"{'none in it' if folder.is_dir() else 'no such folder'}")
        files.append(found)
    pictures, depths = files
    missing = sorted(set(pictures) - set(depths)), sorted(set(depths) - set(pictures))
    if any(missing):
        lines = [f"{len(names)} {what}, e.g. {names[0]}" for names, what in
                 zip(missing, (f"pictures have no depth in {depth}", f"depth files have no picture in {rgb}"),
                     strict=True)
                 if names]
        raise DataError(f"{rgb}: pictures and depth must have the same names: {'; '.join(lines)}")
    return [(name, pictures[name], depths[name]) for name in sorted(pictures)]
