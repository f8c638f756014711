"""Where a score comes from: which weights, which settings, which data, which code; and when two scores are of the same.

What changes a number changes the identity: a row is kept only while all of it stays the same.
"""
import dataclasses
import hashlib
import inspect
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from k3dn_plugin import __version__
from k3dn_plugin.files import file_hash
from k3dn_plugin.zoo.content import weights_hash

PACKAGES = ("torch", "numpy", "opencv-python", "opencv-python-headless", "scikit-image")
OURS = {"k3dn_plugin", "torch", *sys.stdlib_module_names}
LOOKED_AT = 3   # samples of a data set that says nothing of its content


def text_hash(value: object, digits: int = 16) -> str:
    """Return the first hexadecimal digits of the SHA-256 of plain data, or of a text."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def settings_hash(model: nn.Module, network_g: Mapping | None = None) -> str:
    """Return a hash of what a restorer computes with besides its weights.

    That is the mapping that builds it, where it is known, and the class and the plain public attributes of each of its
    modules: some settings (a window, a residual connection) change no weight and yet the result.
    """
    found = [[name, f"{type(part).__module__}.{type(part).__qualname__}",
              {key: plain for key, value in sorted(vars(part).items())
               if key != "training" and not key.startswith("_") and (plain := _plain(value)) is not _OTHER}]
             for name, part in model.named_modules()]
    return text_hash([None if network_g is None else dict(network_g), found])


_OTHER = object()


def _plain(value: object) -> object:
    """A value of plain data as JSON holds it, else `_OTHER`."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, (torch.dtype, torch.Size)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_plain(one) for one in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
        return _OTHER if any(part is _OTHER for part in parts) else parts
    if isinstance(value, Mapping):
        parts = {str(key): _plain(one) for key, one in value.items()}
        return _OTHER if any(part is _OTHER for part in parts.values()) else parts
    return _OTHER


def data_hash(dataset: Any) -> str:
    """Return what identifies the scored frames.

    The content hash of the store, on the data set's card; else the data set's own `fingerprint()` (all settings and
    the content that it is made from); else of a few samples, marked by a question mark, since two data sets might
    share it.
    """
    known = getattr(getattr(dataset, "card", None), "hash", None)
    if known:
        return str(known)[:16]
    if callable(getattr(dataset, "fingerprint", None)):
        return text_hash(dataset.fingerprint())
    digest = hashlib.sha256(f"{type(dataset).__qualname__} {len(dataset)}".encode())
    for index in sorted({round(i * (len(dataset) - 1) / (LOOKED_AT - 1)) for i in range(LOOKED_AT)}):
        sample = dataset[index]
        digest.update(str(sample.get("name", index)).encode("utf-8", "surrogateescape"))
        for key in ("lq", "gt"):
            if sample.get(key) is not None:
                digest.update(sample[key].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16] + "?"


def foreign_code(parts: Iterable[object]) -> str:
    """Return a hash of the source files of all classes that are neither this package's nor torch's; "" where none are.

    Args:
        parts: objects, of modules their parts too.
    """
    classes = {type(one) for part in parts for one in (part.modules() if isinstance(part, nn.Module) else (part,))}
    foreign = {base for cls in classes for base in cls.__mro__ if base.__module__.partition(".")[0] not in OURS}
    files = set()
    for cls in foreign:
        try:
            files.add(inspect.getsourcefile(cls))
        except (TypeError, OSError):
            continue
    return text_hash([file_hash(path) for path in sorted(files - {None}) if Path(path).is_file()]) if foreign else ""


def code_hash(names: Iterable[str]) -> str:
    """Return a hash of the source of imported modules (`custom_imports`), packages with all files; "" for none."""
    found = []
    for name in names:
        module = sys.modules.get(name)
        found += [[name, path.name, file_hash(path)] for path in _source_files(module)] if module else [[name]]
    return text_hash(found) if found else ""


def _source_files(module: ModuleType) -> list[Path]:
    places = [Path(place) for place in getattr(module, "__path__", ())]
    if places:
        return sorted(path for place in places for path in place.rglob("*.py"))
    path = getattr(module, "__file__", None)
    return [Path(path)] if path and Path(path).is_file() else []


def provenance(restorer: nn.Module, dataset: object, *, settings: dict, device: torch.device,
               weights: dict | None = None, protocol: object = None, network_g: Mapping | None = None) -> dict:
    """Return what is stored with every score, as JSON data.

    Args:
        settings: of the evaluation (tile, precision, ensemble).
        weights: what is known of the weights beside their hash (file, origin, recipe), or None.
        network_g: the mapping that builds the restorer, with its defaults, where it is known.
        protocol: the `EvaluationProtocol`, whose code counts where it is not this package's.
    """
    return {
        "restorer": type(restorer).__name__, "weights_hash": weights_hash(restorer),
        "settings_hash": settings_hash(restorer, network_g),
        "weights": weights or {"origin": "in memory"}, "data_hash": data_hash(dataset),
        "data": describe_data(dataset), "settings": settings, "device": device_name(device),
        "code": foreign_code([restorer, dataset, protocol, *getattr(protocol, "scorers", {}).values()]),
        "versions": versions(),
    }


IDENTITY = ("restorer", "weights_hash", "settings_hash", "data_hash", "data", "settings", "code")


def identity(provenance: Mapping, protocol: Mapping) -> dict:
    """Return the part of the provenance that decides what a row holds: rows are kept while it stays the same."""
    same = {key: provenance[key] for key in IDENTITY}
    return {**same, "package": provenance["versions"]["k3dn_plugin"], "protocol": protocol}


def describe_data(dataset: Any) -> dict:
    """Return type, name, length and the settings that decide a data set's frames."""
    card = getattr(dataset, "card", None)
    return {"type": type(dataset).__name__, "name": getattr(card, "name", ""), "images": len(dataset),
            "crop_size": getattr(dataset, "crop_size", None), "crops": getattr(dataset, "crops", None),
            "center": getattr(card, "center", None), "augment": getattr(card, "augment", None)}


def device_name(device: torch.device) -> str:
    """Return `cpu (x86_64)`, or the GPU's name."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of what computes scores."""
    found = {"k3dn_plugin": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
