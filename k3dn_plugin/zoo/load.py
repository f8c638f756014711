"""One way in: whatever names a restorer becomes one that restores pictures.

>>> restorer = load_restorer("experiments/k3dn_demo/models/best.safetensors")      # doctest: +SKIP
>>> sharp = restorer.restore(left, right)                                          # doctest: +SKIP
"""
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.inference.arrays import pair_from_arrays
from k3dn_plugin.inference.device import choose_device
from k3dn_plugin.inference.frames import FrameRestorer, Progress, RestoredFrame, mixed
from k3dn_plugin.inference.settings import InferenceSettings
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.zoo import sources
from k3dn_plugin.zoo.baseline import DO_NOTHING, CenterView
from k3dn_plugin.zoo.content import weights_hash
from k3dn_plugin.zoo.pretrained import pretrained_folder, write_pretrained
from k3dn_plugin.zoo.weights import complete_settings, read_weights

PLAIN_NAME = re.compile(r"[^\W_][\w .+-]{0,99}")   # what may name a folder: one part, and nothing hidden


@dataclass(frozen=True, eq=False)
class LoadedRestorer:
    """A restorer, ready to restore, and all that is known of it.

    Attributes:
        restorer: built, loaded, in evaluation mode on the device.
        source: what it was loaded from, in words ("in memory" for a `Restorer` that was given).
        network_g: the option mapping that builds it; None where it was given without.
        provenance: where the weights come from, as their file says.
        sha256: of the file; None where there is none.
        inference: where, how precisely and in which pieces it runs.
    """

    restorer: Restorer
    source: str = "in memory"
    network_g: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sha256: str | None = None
    inference: InferenceSettings = InferenceSettings()

    def __post_init__(self) -> None:
        # Scores are stored with the settings, which must say what was really done.
        object.__setattr__(self, "inference", self.inference.decided(self.restorer))
        self.restorer.to(self.device).eval()

    @property
    def card(self) -> RestorerCard:
        """What the restorer says of itself: paper, views, size rule, tiling."""
        return self.restorer.card

    @cached_property
    def device(self) -> torch.device:
        """The device that it runs on."""
        return choose_device(self.inference.device)

    @cached_property
    def frames(self) -> FrameRestorer:
        """What restores whole frames of tensors within the memory bound; remembers what it measured."""
        return FrameRestorer(self.restorer, self.inference)

    @property
    def weights_hash(self) -> str:
        """The first 16 digits of a hash of the weights as they are now: names, types, shapes, values."""
        return weights_hash(self.restorer)

    @property
    def settings(self) -> dict[str, Any] | None:
        """`network_g` with the constructor's defaults, as JSON would hold it: part of what identifies a result."""
        return None if self.network_g is None else complete_settings(self.network_g)

    @property
    def name(self) -> str:
        """A plain name for folders of results: of released weights, of the run that trained them, else of their file.

        What a file says is believed only where it is one part of a path, so that no file chooses where results go.
        """
        path, run = Path(self.source), self.provenance.get("run")
        if sources.is_released(path):
            return path.stem
        if isinstance(run, str) and PLAIN_NAME.fullmatch(run) and run == run.strip(" ."):
            return run
        return path.stem if PLAIN_NAME.fullmatch(path.stem) else type(self.restorer).__name__

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the weights beside their hash, as it is stored with scores."""
        if self.sha256 is None:
            return dict(self.provenance) or {"origin": "in memory"}
        # A published file's provenance has the file's hash too, under the same name.
        return {"file": self.source, "sha256": self.sha256, **self.provenance}

    def maps_of(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the maps of a sample, (1, 1, h, w) by name, that the restorer reads besides the views; mostly none."""
        return self.frames.maps_of(sample)

    def restore(self, left: np.ndarray, right: np.ndarray, center: np.ndarray | None = None, *, name: str = "",
                strength: float = 1.0, progress: Progress | None = None) -> np.ndarray:
        """Restore one pair and return the all-in-focus picture, in the type and shape of the views.

        Args:
            left, right: (H, W, 3) RGB, or gray as (H, W); uint8 or uint16 at full scale, or floats in [0, 1].
            center: the captured combined view; the mean of the views where there is none.
            name: of the scene, by which a restorer may find a map of it.
            strength: share of the restored picture in the result, 0 to 1; the rest is the center view.
            progress: called as `progress(tiles done, tiles)` after each tile.

        Returns:
            an array like `left`: integers rounded, floats clamped to [0, 1]. What the network gives beyond that range
            is in `restore_tensor`.

        Raises:
            SizeError: an array has another shape, or no pixel.
            DataError: a type is another, the views differ, or a value is not finite or far from [0, 1].
            OptionError: the memory bound is too small for the network's smallest tile, or the strength is none.
        """
        lq, center_view, form = pair_from_arrays(left, right, center)
        restored = self.restore_tensor(lq, center_view, self.maps_of({"name": name}), progress=progress).image
        blurred = mean_of_views(lq) if center_view is None else center_view
        return form.array(mixed(restored, blurred, strength))

    def restore_tensor(self, lq: torch.Tensor, center: torch.Tensor | None = None,
                       maps: Mapping[str, torch.Tensor] | None = None, *,
                       progress: Progress | None = None) -> RestoredFrame:
        """Restore pairs of tensors.

        Args:
            lq: (B, 6, H, W) float in [0, 1], left RGB then right RGB. center: (B, 3, H, W) or None.
            maps: of `maps_of`; None for those that the restorer finds without a sample.
            progress: as in `restore`.

        Returns:
            the `RestoredFrame`: an image (B, 3, H, W) float32 on the CPU, not clamped, and how it came about.

        Raises:
            SizeError: another shape.
            DataError: not floats.
            OptionError: as in `restore`.
        """
        given: dict[str, object] = {"lq": lq, "center": center}
        for name, tensor in given.items():
            if tensor is not None and not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()):
                found = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
                raise DataError(f"{name}: expected a float tensor in [0, 1]; found {found}. For NumPy arrays use "
                                "restore(left, right)")
        return self.frames(lq, center, maps, progress=progress)

    def save_pretrained(self, folder: str | os.PathLike[str], *, license: str | None = None) -> Path:
        """Write `model.safetensors`, `config.json` and a model card `README.md`, as Hugging Face's hub knows them.

        Args:
            folder: which is made where it is not there.
            license: identifier for the card, such as "apache-2.0"; None leaves it out, for you to decide.

        Returns:
            the folder, which `from_pretrained` and `load_restorer` read.

        Raises:
            OptionError: the settings that build the restorer are not known (one given in memory).
            DataError: the license is no identifier.
            StorageError: the folder cannot be written.
        """
        if self.network_g is None:
            raise OptionError("save_pretrained: the settings that build this restorer are not known, since it was "
                              "given in memory. Load it from a file, or use save_weights(path, restorer, "
                              "network_g=..., provenance=...)")
        if isinstance(self.restorer, CenterView):
            raise OptionError("save_pretrained: the center view as it is needs no folder; name it \"center\"")
        return write_pretrained(folder, self.restorer, network_g=self.network_g, provenance=self.provenance,
                                license=license)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None,
                        device: str | torch.device = "auto", precision: str | torch.dtype | None = None,
                        dtype: str | torch.dtype | None = None, tile: int | None = None,
                        max_memory_gb: float | None = None, self_ensemble: bool = False,
                        compile: bool = False) -> "LoadedRestorer":
        """Return the restorer in a folder of `save_pretrained`, or in a repository of Hugging Face's hub.

        Args:
            source: a folder; or `owner/name` of a repository, where no such folder is here (needs huggingface_hub, and
                the network the first time).
            revision: branch, tag or commit of the repository.
            device, precision, dtype, tile, max_memory_gb, self_ensemble, compile: as for `load_restorer`.

        Raises:
            CheckpointError: neither is there, the repository cannot be fetched, or the weights are damaged.
            DependencyError: it is a repository, and huggingface_hub is not installed.
            OptionError: as `load_restorer`.
        """
        return load_restorer(pretrained_folder(source, revision=revision), device=device, precision=precision,
                             dtype=dtype, tile=tile, max_memory_gb=max_memory_gb, self_ensemble=self_ensemble,
                             compile=compile)


from_pretrained = LoadedRestorer.from_pretrained


def load_restorer(source: str | os.PathLike[str] | Restorer | LoadedRestorer, *, device: str | torch.device = "auto",
                  precision: str | torch.dtype | None = None,
                  dtype: str | torch.dtype | None = None, tile: int | None = None, max_memory_gb: float | None = None,
                  self_ensemble: bool = False, compile: bool = False) -> LoadedRestorer:
    """Load a restorer, ready to restore pictures.

    Args:
        source: a weights file of ours or a published checkpoint; a folder (of `save_pretrained`, of a run, or of a
            published network's files); a name of released weights; "center", which gives the blurred center view back;
            or a `Restorer`, which is moved to the device and put into evaluation mode; or a `LoadedRestorer`, for other
            inference settings.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        precision: "float32" (default); "bf16" or "fp16" (autocast) where the restorer's card lists them; or "auto":
            bf16 where the card says that it changes too little to matter and the device is faster in it.
        dtype: the same, by PyTorch's names or as `torch.dtype`; give one of the two.
        tile: side of square tiles in pixels; None lets memory decide.
        max_memory_gb: bound in GiB, of the process on the CPU, of torch's memory on a GPU; larger frames are restored
            in tiles. None: what is free.
        self_ensemble: take the mean over the four dual-pixel-valid flips (4 x the time).
        compile: run the network through `torch.compile`; the first tile of a size takes about a minute, and on the CPU
            the first after the weights have changed.

    Raises:
        CheckpointError: nothing lies at `source`, it is damaged, or of no known network.
        OptionError: an inference setting has no meaning, or does not fit the restorer or the machine.
    """
    if precision is not None and dtype is not None:
        raise OptionError(f"precision {precision} and dtype {dtype} say the same; give one of them")
    inference = InferenceSettings(device=str(device), precision=dtype if precision is None else precision, tile=tile,
                                  max_memory_gb=max_memory_gb, self_ensemble=self_ensemble, compile=compile)
    if isinstance(source, LoadedRestorer):
        return replace(source, inference=inference)
    if isinstance(source, Restorer):
        return LoadedRestorer(source, inference=inference)
    if str(source) == DO_NOTHING:
        return LoadedRestorer(CenterView(), DO_NOTHING, {"type": "CenterView"},
                              {"origin": "none: the center view as it is"}, None, inference)
    file = read_weights(source)
    # Convolutions are faster with channels last. Not for a restorer that was given: it may be in training, whose
    # bits depend on the order.
    restorer = file.build().to(memory_format=torch.channels_last)
    return LoadedRestorer(restorer, str(file.path), file.network_g, file.provenance, file.sha256, inference)
