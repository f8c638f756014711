"""Weights in NumPy's `.npz`: named arrays (DMENet), or a nameless list, which NumPy pickles (KPAC)."""
import io
import math
import pickle
import zipfile
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.content import FileContent, first_line

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def numpy_tensors(content: FileContent) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the arrays of an `.npz` file.

    Raises:
        CheckpointError: a member says that it holds more than it does, or is a pickle of more than arrays.
    """
    tensors: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
        for member in archive.namelist():
            tensors.update(_members(content, member.removesuffix(".npy"), archive.read(member)))
    return tensors, ()


def _members(content: FileContent, name: str, data: bytes) -> dict[str, np.ndarray]:
    """Return `{key: array}` of one member; an object array gives its elements, numbered."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise CheckpointError(f"{content.path}: its member {name} is of NumPy's format {version}; expected 1.0 or 2.0")
    shape, _, dtype = HEADERS[version](stream)
    if not dtype.hasobject:
        if dtype.kind not in "fiub" or math.prod(shape) * dtype.itemsize > len(data):
            raise CheckpointError(f"{content.path}: its member {name} says that it holds {shape} of {dtype}, in "
                                  f"{len(data):,} bytes; expected numbers, as many as it says")
        return {name: np.load(io.BytesIO(data), allow_pickle=False)}
    try:
        found = _ArrayUnpickler(stream, encoding="latin1").load()
        if not isinstance(found, np.ndarray):
            raise pickle.UnpicklingError(f"it gives a {type(found).__name__}")
        elements: list[Any] = [*cast("Iterable[Any]", found.ravel())]
        arrays = [np.asarray(value) for value in elements
                  if isinstance(value, (np.ndarray, np.generic, float, int)) and np.asarray(value).dtype.kind in "fiub"]
        if len(arrays) != found.size:
            raise pickle.UnpicklingError("its elements are not all arrays of numbers")
    except (pickle.UnpicklingError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(f"{content.path}: its member {name} is a pickle that holds more than arrays "
                              f"({first_line(error)}); such a file is refused") from error
    return {f"{name}.{number}": array for number, array in enumerate(arrays)}


def _empty_array(kind: object, shape: object, code: object) -> np.ndarray:
    """What NumPy's pickles begin an array with; its values and shape follow, and NumPy checks their lengths."""
    if shape != (0,):
        raise pickle.UnpicklingError(f"it asks for an array of shape {shape}")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """What pickles of Python 2 make bytes with."""
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


# All that the pickles of NumPy arrays call, under old and new module names, and what they get here.
_CORE: Any = getattr(np, "_core", None) or np.core   # its name before NumPy 2
_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): "numpy.ndarray", ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _latin1}
for _core in ("core", "_core"):
    _ADMITTED[f"numpy.{_core}.multiarray", "_reconstruct"] = _empty_array
    _ADMITTED[f"numpy.{_core}.multiarray", "scalar"] = _CORE.multiarray.scalar
    _ADMITTED[f"numpy.{_core}.numeric", "_frombuffer"] = _CORE.numeric._frombuffer


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what NumPy's own pickles of arrays call, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]
