"""Pictures of the compared scenes: what each restorer made of them, in 8 bits, to be looked at."""
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.evaluation.evaluate import spread
from k3dn_plugin.evaluation.pictures import detail_window
from k3dn_plugin.zoo.load import LoadedRestorer

DETAIL = 320    # largest side of a detail in the report


def chosen_scenes(dataset, count: int) -> list[int]:
    """Indices of scenes spread evenly over a data set."""
    return sorted(spread(count, len(dataset)))


def save_scene_pictures(loaded: LoadedRestorer, dataset, protocol, scenes, folder):
    """Restore the scenes with these indices and write `restored.png`, `input.png`, `truth.png` of each, 8 bits.

    Pictures that are there are kept. They are as the protocol displays images; scores come from floats.
    """
    folder, todo = Path(folder), []
    for index in scenes:
        if not (folder / str(index) / "restored.png").is_file():
            todo.append(index)
    if not todo:
        return
    for index in todo:
        sample = dataset[index]
        prepared = protocol.prepare(sample)
        frame = loaded.restore_tensor(prepared["lq"][None], prepared["center"][None], loaded.maps_of(sample))
        images = {"truth": prepared["gt"], "input": protocol.do_nothing(sample, prepared),
                  "restored": protocol.finish(frame.image[0], prepared)}
        for name, image in images.items():  # `restored` last: it says that the others are there
            write_image(folder / str(index) / f"{name}.png", _eight_bits(protocol.display(image)))


def details(folders: dict[str, Path], index: int) -> dict[str, np.ndarray]:
    """The same detail of a scene for every contestant, and of `input` and `truth`: (h, w, 3) uint8.

    It lies where input and truth differ most.

    Args:
        folders: by label, where `save_scene_pictures` wrote.
        index: of the scene.
    """
    import torch  # its own failure is a finding
    first = next(iter(folders.values())) / str(index)
    shared = {name: read_image(first / f"{name}.png") for name in ("input", "truth")}
    floats = [torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1) for image in shared.values()]
    rows, columns = (_limited(window) for window in detail_window(*floats))
    images = {**shared, **{label: read_image(folder / str(index) / "restored.png")
                           for label, folder in folders.items()}}
    return {label: np.ascontiguousarray(image[rows, columns]) for label, image in images.items()}


def error_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 images, four times, in the colours of `magma`: (h, w, 3) uint8."""
    from matplotlib import colormaps  # slow to import
    difference = np.abs(image.astype(np.float32) - truth.astype(np.float32)).mean(-1) / 255
    return (255 * colormaps["magma"](np.clip(4 * difference, 0, 1))[..., :3]).astype(np.uint8)


def _limited(window):
    length = min(window.stop - window.start, DETAIL)
    start = window.start + (window.stop - window.start - length) // 2
    return slice(start, start + length)


def _eight_bits(image):
    values = image.float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return np.ascontiguousarray((255 * values + 0.5).astype(np.uint8))
