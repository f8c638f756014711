"""Our weights files: safetensors, with the network's settings and the weights' origin in the header.

A file says of itself what it is, so it can be restored without its recipe:

    restorer = restorer_from_weights("experiments/k3dn_demo/models/best.safetensors")

The header's metadata holds `format` ("k3dn_plugin"), `network_g` (the option mapping, as JSON), `provenance` (recipe
hash, iteration, scores, versions, as JSON) and `content_sha256`, a hash of all of it and of the tensors, which is
checked when the file is read (older files have none). Nothing in such a file is ever executed. Published files of other
formats are read as well, wherever weights are asked for (`published.py`).
"""
import contextlib
import hashlib
import inspect
import json
import os
import struct
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import CheckpointError, K3DNError
from k3dn_plugin.files import atomic_write
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.content import FileContent, is_json_object, read_content, state_hash
from k3dn_plugin.zoo.formats.base import check_state, load_strictly
from k3dn_plugin.zoo.published import read_official
from k3dn_plugin.zoo.sources import TRAINED, find_weights

FORMAT = "k3dn_plugin"
PARTS_PER_TENSOR, FREE_PARTS = 50, 5000   # modules and parameters that a network may have for the tensors in its file


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        path: where it was read.
        state: the state dict, on the CPU.
        network_g: the option mapping (`type` and arguments) of the network that it belongs to.
        provenance: where the weights come from.
        sha256: of the file; of published parts, of all of them.
        kind: the format in words.
    """

    path: Path
    state: dict[str, torch.Tensor]
    network_g: dict[str, Any]
    provenance: dict[str, Any]
    sha256: str = ""
    kind: str = "k3dn_plugin safetensors"

    def build(self) -> Restorer:
        """Build the restorer, load the weights, and return it in evaluation mode on the CPU.

        Raises:
            CheckpointError: the settings describe no network, or one that the tensors do not fit.
        """
        source = f"{self.path}: weights of {self.network_g['type']}"
        try:
            # First without memory: settings of a damaged file may ask for any amount of it.
            with torch.device("meta"), _bounded_construction(self):
                check_state(ARCHS.build(self.network_g), self.state, source=source)
            model = ARCHS.build(self.network_g)
        except CheckpointError:
            raise
        except (K3DNError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError, ArithmeticError,
                LookupError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{self.path}: its settings build no network: {error}\n"
                                  f"stored: {_shown(self.network_g)}") from error
        load_strictly(model, self.state, source=source)
        return model.eval()

    def describe(self, restorer: Restorer) -> str:
        """Return what the file holds, in four lines for a reader."""
        notes = self.provenance.get("notes")
        how = f" ({', '.join(map(str, cast('list[object]', notes)))})" if isinstance(notes, list) and notes else ""
        settings = ", ".join(f"{key}: {value}" for key, value in self.network_g.items() if key != "type")
        card = restorer.card
        return (f"{self.path.name}: {self.kind}{how}, {len(self.state)} tensors\n"
                f"network: {type(restorer).__name__}, {card.title} ({card.venue} {card.year})\n"
                f"views: {', '.join(card.views)}\nsettings: {settings or 'the defaults'}")


@contextlib.contextmanager
def _bounded_construction(file: WeightsFile) -> Generator[None, None, None]:
    """Stop building a network with far more parts than the file has tensors: its settings are damaged or made up."""
    left = PARTS_PER_TENSOR * len(file.state) + FREE_PARTS

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise CheckpointError(
                f"{file.path}: its settings ask for a network far larger than its {len(file.state)} tensors; it is "
                f"damaged, or was made to fill the memory\nstored: {_shown(file.network_g)}")
    hooks = [register(count) for register in (register_module_parameter_registration_hook,
                                              register_module_module_registration_hook)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def save_weights(path: str | os.PathLike[str], model: torch.nn.Module | Mapping[str, torch.Tensor], *,
                 network_g: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write the weights of `model`, or a state dict, whole or not at all.

    Args:
        network_g: the option mapping that builds the network; must be JSON.
        provenance: a JSON mapping that says where the weights come from.

    Raises:
        StorageError: the disk is full or the folder cannot be written; an older file is untouched.
    """
    state = model.state_dict() if isinstance(model, torch.nn.Module) else model
    # safetensors refuses tensors that share memory (tied weights), so each gets its own.
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}
    metadata = {"format": FORMAT, "network_g": json.dumps(network_g), "provenance": json.dumps(provenance)}
    metadata["content_sha256"] = _content_hash(metadata, tensors)
    data = save(tensors, metadata)
    with atomic_write(path) as file:
        file.write(data)


def read_weights(source: str | os.PathLike[str]) -> WeightsFile:
    """Read weights of ours, or a published checkpoint of a known network; each file once.

    Args:
        source: a file, a folder or a name, as `find_weights` takes it.

    Raises:
        CheckpointError: the file is missing, damaged or neither of the two.
    """
    path = find_weights(source)
    content = None if path.is_dir() else read_content(path)
    if content is not None:
        metadata = _metadata(content)
        if metadata.get("format") == FORMAT:
            return _ours(content, metadata)
    try:
        official = read_official(path, content)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {TRAINED}") from None
    return WeightsFile(path, official.state, official.network_g, official.provenance, official.file.sha256,
                       official.file.kind)


def load_weights(path: str | os.PathLike[str], model: torch.nn.Module, *,
                 network_g: Mapping[str, Any] | None = None) -> WeightsFile:
    """Load the weights at `path` into `model`, strictly, and return the `WeightsFile`.

    Args:
        network_g: the mapping that `model` was built from, where known. Settings that change what the
            same weights compute (`residual`, say) then give a warning, and a misfit names them.

    Raises:
        CheckpointError: the file is bad, or belongs to another network; the message names the stored
            and the wanted network and the first differing keys.
    """
    return _load(read_weights(path), model, network_g)


def _load(file: WeightsFile, model: torch.nn.Module, network_g: Mapping[str, Any] | None) -> WeightsFile:
    wanted = network_g or {"type": type(model).__name__}
    differing = differing_settings(file.network_g, wanted) if network_g else []
    try:
        load_strictly(model, file.state, source=f"{file.path}: weights of {file.network_g['type']}")
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_other_views(file.network_g, model)}\n"
                              f"stored: {_shown(file.network_g)}\nwanted: {_shown(wanted)}"
                              + "".join(f"\n  {line}" for line in differing)) from None
    if differing:
        warnings.warn(f"{file.path} was trained with other settings, though every weight fits: "
                      + "; ".join(differing), stacklevel=3)
    return file


def restorer_from_weights(path: str | os.PathLike[str]) -> Restorer:
    """Return the restorer that `path` describes, built and loaded, in evaluation mode on the CPU."""
    return read_weights(path).build()


def load_pretrained(path: str | os.PathLike[str], model: torch.nn.Module, *, strict: bool = True,
                    network_g: Mapping[str, Any] | None = None) -> list[str]:
    """Start `model` from `path.pretrain_network_g`: the one place that knows which files are accepted.

    Files of ours are. With `strict` false, keys that only one side has, or that differ in shape, are
    left as they are and returned as a list of lines.

    Raises:
        CheckpointError: as `load_weights`; or nothing in the file fits the model.
    """
    if strict:
        load_weights(path, model, network_g=network_g)
        return []
    file, own = read_weights(path), model.state_dict()
    fitting = {k: v for k, v in file.state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise CheckpointError(f"{path}: none of its {len(file.state)} tensors fits {type(model).__name__}; "
                              f"stored: {_shown(file.network_g)}. Choose weights of the same network")
    model.load_state_dict(fitting, strict=False)
    return ([f"{k}: not in the network" if k not in own else f"{k}: another shape"
             for k in file.state if k not in fitting]
            + [f"{k}: not in the file" for k in own if k not in file.state])


def _other_views(stored: Mapping[str, Any], model: torch.nn.Module) -> str:
    """Return what to say when the file is of a network that reads other views than `model`."""
    if stored.get("type") not in ARCHS.names() or not isinstance(model, Restorer):
        return ""
    with torch.device("meta"):
        views = ARCHS.build(stored).card.views
    if set(views) == set(model.card.views):
        return ""
    single = len(views) == 1
    return (f"\nThe file is of a {'single-image' if single else 'dual-pixel'} network, which reads "
            f"{', '.join(views)}; {type(model).__name__} reads {', '.join(model.card.views)}. Take the "
            f"{'dual-pixel' if single else 'single-image'} checkpoint, or set network_g to the file's")


def differing_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return lines for the settings in which two `network_g` mappings differ, defaults filled in."""
    stored, wanted = complete_settings(stored), complete_settings(wanted)
    return [f"{key}: {stored.get(key, 'unset')!r} stored, {wanted.get(key, 'unset')!r} wanted"
            for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]


def complete_settings(network_g: Mapping[str, Any]) -> dict[str, Any]:
    """Return `network_g` with the constructor's defaults, as JSON would hold them."""
    defaults = {}
    if network_g.get("type") in ARCHS.names():
        parameters = inspect.signature(ARCHS.get(network_g["type"])).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return json.loads(json.dumps({**defaults, **network_g}, default=str))


def _shown(network_g: Mapping[str, Any], limit: int = 300) -> str:
    rest = ", ".join(f"{k}: {json.dumps(v)}" for k, v in network_g.items() if k != "type")
    text = f"{network_g.get('type')} {{{rest}}}" if rest else str(network_g.get("type"))
    return text if len(text) <= limit else text[:limit] + " ..."


def _metadata(content: FileContent) -> dict[str, str]:
    """Return the header's metadata of a safetensors file, empty for other files and headers without any."""
    data = content.data
    if len(data) < 9 or data[8:9] != b"{":
        return {}
    length = struct.unpack("<Q", data[:8])[0]
    if length > len(data) - 8:
        raise _damaged(content, f"its header says that it has {length:,} bytes")
    try:
        metadata = json.loads(data[8:8 + length])["__metadata__"]
    except KeyError:
        return {}
    except (ValueError, RecursionError, TypeError) as error:
        raise _damaged(content, error) from error
    return metadata if is_json_object(metadata) else {}


def _ours(content: FileContent, metadata: dict[str, str]) -> WeightsFile:
    try:
        state = dict(sorted(tensors_of(content.data).items()))
        network_g, provenance = (json.loads(metadata[key]) for key in ("network_g", "provenance"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise _damaged(content, f"{type(error).__name__}: {error}") from error
    stored = metadata.get("content_sha256")
    if stored is not None and stored != _content_hash(metadata, state):
        raise _damaged(content, "its content is not what was written: the hash stored in it is another")
    if not (is_json_object(network_g) and isinstance(network_g.get("type"), str) and is_json_object(provenance)):
        raise _damaged(content, "expected mappings `network_g`, with `type`, and `provenance` in its header")
    return WeightsFile(content.path, state, network_g, provenance, content.sha256)


def _content_hash(metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of all that a file says, however safetensors orders it."""
    words = (metadata["network_g"], metadata["provenance"], state_hash(tensors))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _damaged(content: FileContent, reason: object) -> CheckpointError:
    return CheckpointError(f"{content.path} is damaged or cut short ({len(content.data):,} bytes): {reason}. "
                           "Copy it again, or take another checkpoint of the run")
