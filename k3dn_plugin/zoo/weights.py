"""Our weights files: safetensors, with the network's settings and the weights' origin in the header.

A file says of itself what it is, so it can be restored without its recipe:

    restorer = restorer_from_weights("experiments/k3dn_demo/models/best.safetensors")

The header's metadata holds `format` ("k3dn_plugin"), `network_g` (the option mapping, as JSON) and
`provenance` (recipe hash, iteration, scores, versions, as JSON). Nothing in such a file is ever executed.
Published files of other formats are read as well, wherever weights are asked for (`published.py`).
"""
import inspect
import json
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.files import atomic_write
from k3dn_plugin.registry import ARCHS, near
from k3dn_plugin.zoo.formats.base import load_strictly
from k3dn_plugin.zoo.published import read_official

FORMAT = "k3dn_plugin"


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        path: where it was read.
        state: the state dict, on the CPU.
        network_g: the option mapping (`type` and arguments) of the network that it belongs to.
        provenance: where the weights come from.
    """

    path: Path
    state: dict[str, torch.Tensor]
    network_g: dict
    provenance: dict


def save_weights(path, model, *, network_g, provenance):
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
    metadata = {"format": FORMAT, "network_g": json.dumps(network_g),
                "provenance": json.dumps(provenance)}
    data = save(tensors, metadata)
    with atomic_write(path) as file:
        file.write(data)


def read_weights(path):
    """The `WeightsFile` at `path`: ours, or a published checkpoint of a known network.

    Raises:
        CheckpointError: the file is missing, truncated, or neither of the two.
    """
    path = Path(path)
    if path.is_file() and _is_safetensors(path):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") == FORMAT:
                    state = {key: file.get_tensor(key) for key in file.keys()}
                    return WeightsFile(path, state, json.loads(metadata["network_g"]),
                                       json.loads(metadata["provenance"]))
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged or cut short ({path.stat().st_size:,} bytes): {error}. "
                                  "Copy it again, or take another checkpoint of the run") from error
    if not path.exists():
        raise CheckpointError(_missing(path))
    try:
        official = read_official(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {_ours()}") from None
    return WeightsFile(path, official.state, official.network_g, official.provenance)


def load_weights(path, model, *, network_g=None):
    """Load the weights at `path` into `model`, strictly, and return the `WeightsFile`.

    Args:
        network_g: the mapping that `model` was built from, where known. Settings that change what the
            same weights compute (`residual`, say) then give a warning, and a misfit names them.

    Raises:
        CheckpointError: the file is bad, or belongs to another network; the message names the stored
            and the wanted network and the first differing keys.
    """
    file = read_weights(path)
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
                      + "; ".join(differing), stacklevel=2)
    return file


def restorer_from_weights(path):
    """The restorer that `path` describes, built and loaded, in evaluation mode on the CPU."""
    file = read_weights(path)
    model = ARCHS.build(file.network_g)
    load_strictly(model, file.state, source=f"{file.path}: weights of {file.network_g['type']}")
    return model.eval()


def load_pretrained(path, model, *, strict=True, network_g=None):
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


def _other_views(stored, model):
    """What to say when the file is of a network that reads other views than `model`."""
    if stored.get("type") not in ARCHS.names() or not hasattr(model, "card"):
        return ""
    with torch.device("meta"):
        views = ARCHS.build(stored).card.views
    if set(views) == set(model.card.views):
        return ""
    single = len(views) == 1
    return (f"\nThe file is of a {'single-image' if single else 'dual-pixel'} network, which reads "
            f"{', '.join(views)}; {type(model).__name__} reads {', '.join(model.card.views)}. Take the "
            f"{'dual-pixel' if single else 'single-image'} checkpoint, or set network_g to the file's")


def differing_settings(stored, wanted):
    """Lines for the settings in which two `network_g` mappings differ, defaults filled in."""
    stored, wanted = _complete(stored), _complete(wanted)
    return [f"{key}: {stored.get(key, 'unset')!r} stored, {wanted.get(key, 'unset')!r} wanted"
            for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]


def _complete(network_g):
    """`network_g` with the constructor's defaults, as JSON would hold them."""
    defaults = {}
    if network_g.get("type") in ARCHS.names():
        parameters = inspect.signature(ARCHS.get(network_g["type"])).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return json.loads(json.dumps({**defaults, **network_g}, default=str))


def _shown(network_g, limit=300):
    rest = ", ".join(f"{k}: {json.dumps(v)}" for k, v in network_g.items() if k != "type")
    text = f"{network_g.get('type')} {{{rest}}}" if rest else str(network_g.get("type"))
    return text if len(text) <= limit else text[:limit] + " ..."


def _missing(path):
    there = sorted(p.name for p in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
    held = f"{path.parent} holds {', '.join(there[:5])}." if there else f"{path.parent} holds no weights."
    return f"no weights file at {path}: {held}{near(path.name, there)} {_ours()}"


def _is_safetensors(path):
    """Whether it begins as they do: the header's length (8 bytes, little endian) and the header's "{"."""
    with open(path, "rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1e8


def _ours():
    return "Training writes weights to experiments/<name>/models/ (best.safetensors, last.safetensors)"
