"""`DualPixelDataset`: a store of dual-pixel scenes as training crops or whole frames."""
import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from k3dn_plugin.data.augmentation import AUGMENTATIONS, Window
from k3dn_plugin.data.card import DatasetCard
from k3dn_plugin.data.images import to_float
from k3dn_plugin.data.sample import SampleIndex, random_source
from k3dn_plugin.data.store import open_store
from k3dn_plugin.data.store.manifest import MAPS, SceneRecord
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.registry import DATASETS, nearest

Size = tuple[int, int]
Patch = tuple[tuple[int, int], Size]  # origin and size


@DATASETS.register_module()
class DualPixelDataset(Dataset):
    """Samples (`data/sample.py`) from a store of whole frames.

        dataset = DualPixelDataset(store="datasets/dpdd/train.lmdb", crop_size=(288, 336), augment="dp_safe")
        dataset[SampleIndex(epoch=0, index=5)]["lq"]      # (6, 288, 336), the same whoever asks

    What a sample looks like depends on (seed, epoch, index) alone. Asked with a plain integer, as other
    toolboxes do, a data set with random choices draws the epoch from torch's global generator.

    Args:
        store: folder of an `LmdbStore` or of BasicSR databases.
        crop_size: (rows, columns), or one number for both; whole frames if None.
        augment: "dp_safe" (vertical flip; horizontal flip that exchanges the views), "legacy8" (the eight
            blind symmetries of published recipes: square crops only, maps left out since a blind flip makes
            them wrong) or "none".
        crops: "random", anywhere in the frame; or the name of a crop set in the store's manifest: an item is
            then one of its patches, and a smaller `crop_size` a random crop inside it.
        seed: of the random choices.
        repeat: how often an epoch goes through the scenes, with other choices each time.
        center: "captured", where every scene has a captured combined view (else the mean is used), or "mean".
        truth: whether every scene must have its sharp image; False allows sets without any.

    Raises:
        DataError: the store is missing or unfinished (the message gives the ways on), a scene misses a view,
            views of a scene differ in size, a frame is smaller than the crop, or there is no such crop set.
        OptionError: arguments that contradict each other.
    """

    def __init__(self, *, store: str, crop_size: int | tuple[int, int] | None = None,
                 augment: Literal["none", "dp_safe", "legacy8"] = "none", crops: str = "random",
                 seed: int = 0, repeat: int = 1, center: Literal["captured", "mean"] = "captured",
                 truth: bool = True) -> None:
        self.store = open_store(store)
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        self.augment, self.crops, self.seed, self.repeat = augment, crops, seed, repeat
        if min(self.crop_size or (1, 1)) < 1 or repeat < 1 or augment not in AUGMENTATIONS:
            raise OptionError(f"{store}: expected a crop_size and a repeat of at least 1 and an augment of "
                              f"{', '.join(AUGMENTATIONS)}; found {crop_size}, {repeat}, {augment!r}")
        self._check_views(truth)
        self._center: Literal["captured", "mean"] = center if self._all_have("center") else "mean"
        self._maps = tuple(m for m in MAPS if augment != "legacy8" and self._all_have(m))
        self._items = self._list_items()
        self._check_crop(self.crop_size)

    @functools.cached_property
    def card(self) -> DatasetCard:
        """Return what this data set says of itself."""
        facts = self.store.manifest.facts
        depth = facts["bit_depth"] or 8 * np.dtype(self._records()[0].views["left"].dtype).itemsize
        return DatasetCard(
            name=self.store.manifest.dataset, hash=self.store.hash, bit_depth=depth, linear=facts["linear"],
            black_level=facts["black_level"], disparity_axis=facts["disparity_axis"], center=self._center,
            truth=self._truth, maps={m: facts[f"{m}_unit"] for m in self._maps}, augment=self.augment,
            licence=facts["licence"], source=facts["source"], facts=facts)

    def tags(self, name: str) -> dict:
        """Return what the manifest knows of a scene, e.g. `{"place": "indoor"}`; by the sample's `name`."""
        return self.store.scene(name.partition("#")[0]).tags

    def __len__(self) -> int:
        return len(self._items) * self.repeat

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        if not isinstance(index, SampleIndex):
            index = SampleIndex(self._drawn_epoch(), int(index))
        place = index.index + len(self) if index.index < 0 else index.index
        if not 0 <= place < len(self):
            raise IndexError(f"{self.store.path}: sample {index.index} of {len(self)}")
        scene, patch, label = self._items[place % len(self._items)]
        draw = random_source(self.seed, index.epoch, place)
        rows, columns = self._crop(scene, patch, index.crop_size or self.crop_size, draw)
        symmetries = AUGMENTATIONS[self.augment]
        symmetry = symmetries[draw.integers(len(symmetries))]
        frames = {view: self.store.read(scene, view, rows, columns) for view in self._wanted_views()}
        sample = self._sample(symmetry.apply(frames), label)
        if self.crops != "random" or index.crop_size or self.crop_size:
            window = symmetry.window(Window((rows.start, columns.start), frames["left"].shape[:2],
                                            self.store.scene(scene).size))
            sample["window"] = torch.tensor([*window.place, *window.frame])
        return sample

    def _sample(self, frames: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        height, width = frames["left"].shape[:2]
        lq = torch.empty(6, height, width)
        self._fill(lq[:3], frames["left"], "left")
        self._fill(lq[3:], frames["right"], "right")
        sample = {"lq": lq, "name": name}
        if self._center == "captured":
            sample["center"] = self._fill(torch.empty(3, height, width), frames["center"], "center")
        else:
            sample["center"] = mean_of_views(lq)
        if self._truth:
            sample["gt"] = self._fill(torch.empty(3, height, width), frames["sharp"], "sharp")
        for key in self._maps:
            sample[key] = torch.from_numpy(np.ascontiguousarray(frames[key]))[None]
        if "defocus" in sample and str(self.store.manifest.facts["defocus_unit"]).startswith("px"):
            sample["coc"] = sample["defocus"]
        return sample

    def _fill(self, image: torch.Tensor, frame: np.ndarray, view: str) -> torch.Tensor:
        """Write a stored frame (H, W, channels) into `image` (3, H, W) as floats in [0, 1]."""
        # A single channel (the sensor's green) is broadcast to three.
        to_float(np.broadcast_to(frame.transpose(2, 0, 1), image.shape), out=image.numpy(),
                 black_level=self._level("black_level", view) or 0, full_scale=self._level("full_scale", view))
        return image

    def _level(self, fact: str, view: str) -> float | None:
        value = self.store.manifest.facts[fact]
        return value.get(view) if isinstance(value, dict) else value

    def _crop(self, scene: str, patch: Patch, size: Size | None, draw: np.random.Generator) -> tuple[slice, slice]:
        """Return the rows and columns to read: the patch, or a crop of `size` drawn inside it."""
        (top, left), (height, width) = patch
        if size is None:
            return slice(top, top + height), slice(left, left + width)
        if size[0] > height or size[1] > width:
            raise DataError(self._too_large(scene, (height, width), size))
        if self.augment == "legacy8" and size[0] != size[1]:
            raise OptionError(_not_square(size))
        row, column = draw.integers(0, [height - size[0] + 1, width - size[1] + 1])
        return slice(top + row, top + row + size[0]), slice(left + column, left + column + size[1])

    def _drawn_epoch(self) -> int:
        is_random = self.augment != "none" or self.crop_size is not None
        return int(torch.randint(2**31, ())) if is_random else 0

    def _wanted_views(self) -> list[str]:
        views = ["left", "right", *self._maps]
        views += ["center"] if self._center == "captured" else []
        return [*views, "sharp"] if self._truth else views

    def _records(self) -> list[SceneRecord]:
        return list(self.store.manifest.scenes.values())

    def _all_have(self, view: str) -> bool:
        return all(view in scene.views for scene in self._records())

    def _check_views(self, truth: bool) -> None:
        facts = self.store.manifest.facts
        if facts["disparity_axis"] != "x":
            raise DataError(f"{self.store.path}: its views are shifted along {facts['disparity_axis']!r}, "
                            "expected 'x' (the columns). Prepare it again; preparing turns portrait frames")
        some_have_truth = any("sharp" in scene.views for scene in self._records())
        self._truth = truth or some_have_truth
        for scene in self._records():
            needed = ("left", "right", "sharp") if self._truth else ("left", "right")
            missing = [view for view in needed if view not in scene.views]
            if missing:
                advice = ", or set `truth: false` for a set without sharp images" * (missing == ["sharp"])
                raise DataError(
                    f"{self.store.path}: scene {scene.name!r} has no {' and no '.join(missing)} view, only "
                    f"{', '.join(scene.views)}. Prepare it from complete folders{advice}")
            sizes = {view: record.shape[:2] for view, record in scene.views.items()}
            if len(set(sizes.values())) > 1:
                raise DataError(f"{self.store.path}: the views of scene {scene.name!r} differ in size (rows, "
                                f"columns): {', '.join(f'{v} {s}' for v, s in sizes.items())}")

    def _list_items(self) -> list[tuple[str, Patch, str]]:
        """Return `(scene, (origin, size), sample name)` of every item of an epoch."""
        if self.crops == "random":
            return [(scene.name, ((0, 0), scene.size), scene.name) for scene in self._records()]
        sets = self.store.manifest.facts["crop_sets"]
        if self.crops not in sets:
            raise DataError(f"{self.store.path}: no crop set {self.crops!r}. "
                            + nearest(self.crops, ["random", *sorted(sets)]))
        size = tuple(sets[self.crops]["size"])
        return [(scene.name, (tuple(origin), size), f"{scene.name}#{number:02d}") for scene in self._records()
                for number, origin in enumerate(scene.crops.get(self.crops, ()))]

    def _check_crop(self, size: Size | None) -> None:
        if self.augment == "legacy8":
            for height, width in {size} if size else {patch[1] for _, patch, _ in self._items}:
                if height != width:
                    raise OptionError(_not_square((height, width)))
        for scene, (_, have), _ in self._items:
            if size is not None and (size[0] > have[0] or size[1] > have[1]):
                raise DataError(self._too_large(scene, have, size))

    def _too_large(self, scene: str, have: Size, size: Size) -> str:
        what = "frame" if self.crops == "random" else f"patch of crop set {self.crops!r}"
        return (f"{self.store.path}: scene {scene!r}: a crop of {size[0]} x {size[1]} (rows x columns) does "
                f"not fit in its {what} of {have[0]} x {have[1]}. Set a smaller crop_size")


def _not_square(size: Size) -> str:
    return (f"augment: legacy8 turns pictures by 90 degrees, so crops must be square; found {size[0]} x "
            f"{size[1]} (rows x columns). Set a square crop_size, or use augment: dp_safe")
