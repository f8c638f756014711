"""Pictures of the compared scenes: what each restorer made of them, in 8 bits, to be looked at."""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch.utils.data import Dataset

from k3dn_plugin.data.collage import eight_bits
from k3dn_plugin.data.images import read_image, to_float
from k3dn_plugin.evaluation.evaluate import spread
from k3dn_plugin.evaluation.pictures import detail_window
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.files import atomic_write
from k3dn_plugin.zoo.load import LoadedRestorer

DETAIL = 320    # largest side of a detail in the report


def chosen_scenes(dataset: Any, count: int) -> list[int]:
    """Return indices of scenes spread evenly over a data set."""
    return sorted(spread(count, len(dataset)))


def save_scene_pictures(loaded: LoadedRestorer, dataset: Dataset, protocol: EvaluationProtocol, scenes: Sequence[int],
                        folder: str | Path, *, key: str) -> list[Path]:
    """Restore scenes and write `restored.png`, `input.png`, `truth.png` of each, as the protocol displays them.

    Each file says in a text of its own to which job it belongs; those of this job are kept, others are made anew.

    Args:
        scenes: indices in the data set.
        key: of the job (`Job.key`).

    Returns:
        all files that belong to the scenes.
    """
    folder = Path(folder)
    files = {index: [folder / str(index) / f"{name}.png" for name in ("restored", "input", "truth")]
             for index in scenes}
    todo = [index for index, paths in files.items() if any(_key_of(path) != key for path in paths)]
    for index in todo:
        sample = dataset[index]
        prepared = protocol.prepare(sample)
        frame = loaded.restore_tensor(prepared["lq"][None], prepared["center"][None], loaded.maps_of(sample))
        images = (protocol.finish(frame.image[0], prepared), protocol.do_nothing(sample, prepared), prepared["gt"])
        for path, image in zip(files[index], images, strict=True):
            shown = protocol.display(image).float().cpu().permute(1, 2, 0)
            _write_keyed(path, eight_bits(shown.contiguous().numpy()), key)
    return [path for paths in files.values() for path in paths]


KEY = "k3dn_plugin job"


def _write_keyed(path: Path, image: np.ndarray, key: str) -> None:
    info = PngInfo()
    info.add_text(KEY, key)
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, "PNG", pnginfo=info)


def _key_of(path: Path) -> str | None:
    """The job to which a picture says that it belongs; None where there is no whole picture."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.text.get(KEY) if isinstance(image, PngImageFile) else None
    except (OSError, ValueError, SyntaxError):
        return None


@dataclass(frozen=True)
class Details:
    """The same detail of a scene, (h, w, 3) uint8 each: what was put in, what is true, and each restorer's result."""

    blurred: np.ndarray
    truth: np.ndarray
    restored: list[np.ndarray]


def details(folders: Sequence[Path], index: int) -> Details:
    """Return the detail of a scene in which input and truth differ most.

    Args:
        folders: where `save_scene_pictures` wrote, one a restorer.
        index: of the scene.
    """
    shared = [read_image(folders[0] / str(index) / f"{name}.png") for name in ("input", "truth")]
    floats = [torch.from_numpy(to_float(image)).permute(2, 0, 1) for image in shared]
    rows, columns = (_limited(window) for window in detail_window(*floats))
    blurred, truth, *restored = (
        np.ascontiguousarray(image[rows, columns])
        for image in (*shared, *(read_image(folder / str(index) / "restored.png") for folder in folders)))
    return Details(blurred, truth, restored)


def error_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the absolute difference of two uint8 images, four times, in the colors of `magma`: (h, w, 3) uint8."""
    from matplotlib import colormaps  # slow to import
    difference = np.abs(to_float(image) - to_float(truth)).mean(-1)
    return (255 * colormaps["magma"](np.clip(4 * difference, 0, 1))[..., :3]).astype(np.uint8)


def _limited(window: slice) -> slice:
    length = min(window.stop - window.start, DETAIL)
    start = window.start + (window.stop - window.start - length) // 2
    return slice(start, start + length)
