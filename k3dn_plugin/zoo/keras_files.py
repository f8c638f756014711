"""Weights that Keras 2 wrote as HDF5 (DPDNet, RDPD): layers in the order of `layer_names`, nothing outside the file."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false
# (h5py has no types; what leaves this file is typed)
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from k3dn_plugin.errors import CheckpointError, DependencyError
from k3dn_plugin.zoo.content import FileContent

if TYPE_CHECKING:
    import h5py

ORDER = {"kernel": 0, "recurrent_kernel": 1, "bias": 2}


def keras_tensors(content: FileContent) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the arrays of a Keras file in the order of its layers.

    Raises:
        CheckpointError: no file of Keras; or it points outside of itself, which is not followed.
        DependencyError: h5py is not installed.
    """
    try:
        import h5py  # optional, and heavy
    except ImportError as error:
        raise DependencyError(f"{content.path} is a Keras file, which needs h5py: pip install h5py") from error
    with h5py.File(h5py.h5f.open_file_image(content.data), "r") as file:
        group = _group(content, file, "model_weights") if "model_weights" in file else file
        layers = _names(group, "layer_names")
        if layers is None:
            raise CheckpointError(
                f"{content.path} is an HDF5 file without the attribute layer_names, which tells the order of "
                "Keras's layers; expected a model saved by Keras 2 (.hdf5, .h5)")
        found: dict[str, h5py.Dataset] = {}
        for layer in layers:
            held = _group(content, group, layer)
            for name in sorted(_names(held, "weight_names") or (), key=_kind_order):
                found[_unused(name, found)] = _dataset(content, _member(content, held, name))
        content.check_declared(sum(math.prod(d.shape) * d.dtype.itemsize for d in found.values()))
        return {name: np.asarray(dataset) for name, dataset in found.items()}, ()


def _group(content: FileContent, group: h5py.Group, name: str) -> h5py.Group:
    """Return a group within a group by its path."""
    import h5py  # as above
    found = _member(content, group, name)
    if not isinstance(found, h5py.Group):
        raise CheckpointError(f"{content.path}: {found.name} is no group of weights; expected a file as Keras 2 "
                              "writes it")
    return found


def _member(content: FileContent, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """Return a member of a group by its path, without following links: they may lead out of the file, or in circles."""
    import h5py  # as above
    found: Any = group
    for part in [part for part in name.split("/") if part]:
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise CheckpointError(f"{content.path}: the Keras file lists {name!r}, but holds no such member; it is "
                                  "damaged")
        if not isinstance(link, h5py.HardLink):
            raise CheckpointError(f"{content.path}: its member {name!r} is a link"
                                  + (f" to the file {link.filename!r}" if isinstance(link, h5py.ExternalLink) else "")
                                  + ", which is not followed; expected the weights themselves. Save the model anew")
        found = found[part]
    return found


def _dataset(content: FileContent, member: h5py.Group | h5py.Dataset) -> h5py.Dataset:
    import h5py  # as above
    if not isinstance(member, h5py.Dataset) or member.dtype.kind not in "fiu" or member.shape is None:
        raise CheckpointError(f"{content.path}: {member.name} is {getattr(member, 'dtype', 'a group')}; expected an "
                              "array of numbers")
    if member.external or member.is_virtual:
        raise CheckpointError(f"{content.path}: the values of {member.name} lie in other files, which are not read; "
                              "expected the weights themselves. Save the model anew")
    return member


def _names(group: h5py.Group, attribute: str) -> list[str] | None:
    """Return a list of names, which Keras splits over `attribute0`, `attribute1`, ... where it is long."""
    if attribute in group.attrs:
        values = list(np.asarray(group.attrs[attribute]))
    else:
        values, part = [], 0
        while f"{attribute}{part}" in group.attrs:
            values += list(np.asarray(group.attrs[f"{attribute}{part}"]))
            part += 1
        if not part:
            return None
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


def _kind_order(name: str) -> int:
    return ORDER.get(name.split("/")[-1].split(":")[0], len(ORDER))


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    return name if name not in taken else f"{len(taken)}/{name}"
