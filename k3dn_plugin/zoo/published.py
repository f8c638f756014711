"""Published checkpoints, recognized by their keys: which network, which views, which settings.

>>> checkpoint = load_official("dual_pixel_defocus_deblurring.pth")      # doctest: +SKIP
>>> print(checkpoint.describe())                                         # doctest: +SKIP
>>> restored = checkpoint.restorer(lq)                                   # doctest: +SKIP
"""
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import CheckpointError, K3DNError
from k3dn_plugin.registry import FORMATS
from k3dn_plugin.zoo.content import FileContent, OfficialFile, read_content
from k3dn_plugin.zoo.formats.base import check_state, load_strictly, official_format
from k3dn_plugin.zoo.official_files import read_official_file
from k3dn_plugin.zoo.unwrapping import readings

PARTS = {"dddnet_estd": "estd", "dddnet_esti": "esti"}  # published as two files
# What reading the settings of a relative raises: some of the keys are there, others are not, or have odd shapes.
NOT_ITS_SETTINGS = (K3DNError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError)
UNFIT = ("ifan_train", "ifan_dual_train", "bambnet_reblur", "dmenet_deconv")


@dataclass(frozen=True)
class OfficialWeights:
    """A published file in our terms.

    Attributes:
        file: what was read.
        network: its name among the official formats ("restormer", "drbnet_dual", ...).
        settings: the official settings, inferred from the tensors' shapes.
        network_g: the option mapping that builds our restorer.
        state: its state dict, ours, float32.
    """

    file: OfficialFile
    network: str
    settings: dict[str, Any]
    network_g: dict[str, Any]
    state: dict[str, torch.Tensor]

    @property
    def provenance(self) -> dict[str, Any]:
        """What is stored with converted weights: origin, file, hash and how they were recognized."""
        return {"origin": "official weights", "network": self.network, "file": self.file.path.name,
                "sha256": self.file.sha256, "format": self.file.kind, "notes": list(self.file.notes),
                "official_settings": self.settings}

    def build(self) -> Restorer:
        """Return the restorer, loaded, in evaluation mode on the CPU."""
        model = official_format(self.network).build(self.settings, self.network)
        if not isinstance(model, Restorer):
            raise CheckpointError(f"{self.file.path}: {self.network} is not a restorer by itself, but trains beside "
                                  "one; take the checkpoint of the restorer")
        load_strictly(model, self.state, source=f"{self.file.path}: official {self.network} weights")
        return model.eval()


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A published restorer, ready to use.

    Attributes:
        restorer: built, loaded, in evaluation mode on the CPU.
        weights: where it came from.
    """

    restorer: Restorer
    weights: OfficialWeights

    @property
    def network(self) -> str:
        """The network's name among the official formats."""
        return self.weights.network

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it reads, in its order."""
        return self.restorer.card.views

    @property
    def settings(self) -> dict[str, Any]:
        """The official settings that were found."""
        return self.weights.settings

    def describe(self) -> str:
        """Return which network, views and settings were found, in words."""
        file, found = self.weights.file, self.weights
        how = f" ({', '.join(file.notes)})" if file.notes else ""
        settings = ", ".join(f"{key}: {value}" for key, value in found.settings.items())
        return (f"{file.path.name}: {file.kind}{how}, {len(file.tensors)} tensors\n"
                f"network: {type(self.restorer).__name__}, {self.restorer.card.title} "
                f"({self.restorer.card.venue} {self.restorer.card.year})\n"
                f"views: {', '.join(self.views)}\nsettings: {settings}")


def load_official(path: str | os.PathLike[str]) -> OfficialCheckpoint:
    """Build and load the network of a published weights file.

    Args:
        path: a file; for DDDNet either of its two files (the other beside it) or their folder.

    Raises:
        CheckpointError: the file is missing or damaged, would execute code, or is no known network's.
    """
    weights = read_official(path)
    return OfficialCheckpoint(weights.build(), weights)


def read_official(path: str | os.PathLike[str], content: FileContent | None = None) -> OfficialWeights:
    """Read and recognise a published weights file; see `load_official`.

    Args:
        content: of the file, where it has been read already.
    """
    path = Path(path)
    if path.is_dir():
        return _from_parts(path, sorted(p for p in path.iterdir() if p.is_file()))
    found = recognise(read_official_file(content or read_content(path)))
    if found.network in PARTS:
        return _from_parts(path, _siblings(path, PARTS[found.network]), {PARTS[found.network]: found})
    return found


def recognise(file: OfficialFile) -> OfficialWeights:
    """Return what a published file holds in our terms; of one of several files (`PARTS`), network and settings alone.

    A network is recognized by all of its keys and shapes, so that no relative is taken for it.

    Raises:
        CheckpointError: no known network has them; the message shows the first keys, or names the nearest network.
    """
    near = None
    for reading in readings(file):
        shapes = {key: tuple(value.shape) for key, value in reading.tensors.items()}
        for known in dict.fromkeys(FORMATS.get(name) for name in FORMATS.names()):
            try:
                found = known().recognise(shapes)
                if found is None:
                    continue
                network, settings = found
                return (OfficialWeights(reading, network, settings, {}, {}) if network in PARTS
                        else _converted(reading, network, settings))
            except CheckpointError as error:
                near = near or error
            except NOT_ITS_SETTINGS as error:
                near = near or CheckpointError(f"{file.path}: it resembles the networks of {known.__name__}, but is "
                                               f"none of them ({type(error).__name__}: {error})")
    if near is not None:
        raise near
    shapes = {key: tuple(value.shape) for key, value in file.tensors.items()}
    fixed = next((key for key in shapes if key.endswith("conv1.weight_left")), None)
    if fixed:
        raise CheckpointError(
            f"{file.path}: {fixed} is of a K3DN whose kernels were fixed for inference, which can neither be "
            "trained nor reblur; take the checkpoint from before that step (deblur.N.conv1.weight)")
    first = ", ".join(f"{key} {shape}" for key, shape in list(shapes.items())[:4])
    raise CheckpointError(
        f"{file.path}: a {file.kind} file with {len(shapes)} tensors of no network known here (it begins with "
        f"{first}). Known: {', '.join(sorted(set(FORMATS.names()) - set(UNFIT)))}")


def _converted(file: OfficialFile, network: str, settings: dict[str, Any]) -> OfficialWeights:
    known = official_format(network)
    state = {key: value.float() if value.is_floating_point() else value
             for key, value in known.convert(file.tensors, network).items()}
    network_g = {"type": known.arch_of(network), **known.arguments(settings, network)}
    with torch.device("meta"):
        model = known.build(settings, network)
    wanted = model.state_dict()
    # Counters of batch norm: PyTorch before 0.4.1 saved none, and they compute nothing.
    counters = [key for key in {**wanted, **state} if key.endswith("num_batches_tracked")]
    state = {key: value for key, value in state.items() if key in wanted or key not in counters}
    state.update({key: torch.zeros((), dtype=torch.int64) for key in counters
                  if key in wanted and key not in state})
    check_state(model, state, source=f"{file.path}: {file.kind} weights like those of {network}")
    return OfficialWeights(file, network, settings, network_g, state)


def _siblings(path: Path, part: str) -> list[Path]:
    """Return the files beside `path` that may hold the other of two parts: its name with estd for esti, or back."""
    other = {"estd": "esti", "esti": "estd"}[part]
    at = path.name.lower().find(part)
    if at < 0:
        return []
    last = other[-1].upper() if path.name[at + 3].isupper() else other[-1]
    sibling = path.with_name(path.name[:at + 3] + last + path.name[at + 4:])
    return [sibling] if sibling.is_file() else []


def _from_parts(path: Path, others: Sequence[Path],
                known: Mapping[str, OfficialWeights] = MappingProxyType({})) -> OfficialWeights:
    """Return DDDNet from its two files: `known`, by part, and those found among `others`."""
    parts = dict(known)
    for each in others:
        try:
            found = recognise(read_official_file(read_content(each)))
        except CheckpointError:
            continue
        if found.network in PARTS:
            parts.setdefault(PARTS[found.network], found)
    # In the order of their names, so that their hash does not depend on which of them was named.
    found = {part: parts[part].file for part in sorted(parts)}
    settings = {part: parts[part].settings for part in sorted(parts)}
    missing = [part for part in PARTS.values() if part not in found]
    if missing:
        have = ", ".join(f"{part} ({file.path.name})" for part, file in found.items())
        if not found:
            raise CheckpointError(f"{path} is a folder; expected a weights file, or a folder with DDDNet's two "
                                  "files, Estd.pkl and Esti.pkl")
        raise CheckpointError(
            f"{path}: DDDNet is published as two files, Estd.pkl (depth) and Esti.pkl (image); found {have}. "
            f"Put the other one beside it under that name, or give the folder that holds both")
    tensors = {f"{part}.{key}": value for part, file in found.items() for key, value in file.tensors.items()}
    notes = tuple(note for file in found.values() for note in file.notes)
    kind = " and ".join(dict.fromkeys(file.kind for file in found.values()))
    sha256 = hashlib.sha256("".join(file.sha256 for file in found.values()).encode()).hexdigest()
    return _converted(OfficialFile(path, kind, tensors, tuple(dict.fromkeys(notes)), sha256), "dddnet", settings)
