"""Where a score comes from: which weights, which data, what computed it."""
import hashlib
import platform
from importlib import metadata

import torch

from k3dn_plugin import __version__
from k3dn_plugin.zoo.content import weights_hash

PACKAGES = ("torch", "numpy", "opencv-python", "opencv-python-headless", "scikit-image")


def data_hash(dataset) -> str:
    """What identifies the scored frames: the hash on the data set's card, else of its type and length.

    The second form is marked by a question mark, since two data sets may share it.
    """
    known = getattr(getattr(dataset, "card", None), "hash", None)
    if known:
        return str(known)[:16]
    return hashlib.sha256(f"{type(dataset).__qualname__} {len(dataset)}".encode()).hexdigest()[:16] + "?"


def provenance(restorer, dataset, *, settings, device, weights=None) -> dict:
    """What is stored with every score, as JSON data.

    Args:
        settings: of the evaluation (tile, precision, ensemble).
        weights: what is known of the weights beside their hash (file, origin, recipe), or None.
    """
    return {
        "restorer": type(restorer).__name__, "weights_hash": weights_hash(restorer),
        "weights": weights or {"origin": "in memory"}, "data_hash": data_hash(dataset),
        "data": describe_data(dataset), "settings": settings, "device": device_name(device),
        "versions": versions(),
    }


def identity(provenance, protocol) -> dict:
    """The part of the provenance that decides what a row holds: rows are kept while it stays the same."""
    same = {key: provenance[key] for key in ("restorer", "weights_hash", "data_hash", "data", "settings")}
    return {**same, "protocol": protocol}


def describe_data(dataset) -> dict:
    """Type, name, length and crop size of a data set."""
    return {"type": type(dataset).__name__, "name": getattr(getattr(dataset, "card", None), "name", ""),
            "images": len(dataset), "crop_size": getattr(dataset, "crop_size", None)}


def device_name(device) -> str:
    """`cpu (x86_64)`, or the GPU's name."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of what computes scores."""
    found = {"k3dn_plugin": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
