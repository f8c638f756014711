"""Reads the files in which published weights come, without ever executing what a pickle asks for.

| format | of | read with |
|---|---|---|
| PyTorch, zip or older | most networks | `torch.load(weights_only=True)`, `unwrapping.py` |
| Keras HDF5 | DPDNet, RDPD | `keras_files.py` |
| TensorLayer `.npz` | DMENet, KPAC | `numpy_files.py` |
| safetensors of others | converted files | safetensors |
"""
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors

from k3dn_plugin.errors import CheckpointError, K3DNError
from k3dn_plugin.zoo.content import FileContent, OfficialFile, damaged, first_line
from k3dn_plugin.zoo.keras_files import keras_tensors
from k3dn_plugin.zoo.numpy_files import numpy_tensors
from k3dn_plugin.zoo.unwrapping import unwrapped

EXPECTED = ("expected weights: PyTorch (.pth, .pt, .pkl), Keras (.hdf5), TensorLayer (.npz) or safetensors")


def read_official_file(content: FileContent) -> OfficialFile:
    """Return the tensors of a published weights file, recognized by its first bytes, not by its name.

    Raises:
        CheckpointError: the file is damaged, holds no tensors, could only be read by executing code, or says that it
            holds more than memory should be trusted with.
        DependencyError: a Keras file, and h5py is not installed.
    """
    head = content.data[:16]
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_as(content, "Keras HDF5", "Keras file")
    if head[8:9] == b"{":
        return _read_as(content, "safetensors", "safetensors file")
    if head.startswith(b"PK"):
        return _read_as(content, *_kind_of_zip(content))
    if head.startswith(b"\x80"):
        return _read_as(content, "PyTorch", "PyTorch file")
    what = "an empty file" if not head else f"a file that begins with {head[:8]!r}"
    raise CheckpointError(f"{content.path} is {what}; {EXPECTED}. Is it the download's error page, or an archive to be "
                          "unpacked first?")


def _read_as(content: FileContent, kind: str, words: str) -> OfficialFile:
    """Read by kind; whatever a damaged file makes a parser raise becomes one error."""
    try:
        tensors, notes = READERS[kind](content)
    except K3DNError:
        raise
    except Exception as error:  # parsers of damaged files fail in any way
        raise damaged(content, words, error) from error
    if not tensors:
        raise CheckpointError(f"{content.path} is a {words} without tensors; {EXPECTED}")
    return OfficialFile(content.path, kind, tensors, notes, content.sha256)


def _kind_of_zip(content: FileContent) -> tuple[str, str]:
    """Return `(kind, words)` of what is a zip archive: PyTorch's, NumPy's, or one that has to be unpacked.

    Raises:
        CheckpointError: it is a TorchScript program, or an archive of other files.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
            names = archive.namelist()
            declared = sum(info.file_size for info in archive.infolist())
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise damaged(content, "PyTorch or NumPy file", error) from error
    content.check_declared(declared, "what it packs")
    bare = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in bare or any("/code/" in name for name in names):
        raise CheckpointError(
            f"{content.path} is a TorchScript program, not a state dict: reading it would execute its code, and it is "
            f"refused. Save its weights alone: torch.save(torch.jit.load({content.path.name!r}).state_dict(), "
            "'weights.pth')")
    if "data.pkl" in bare:
        return "PyTorch", "PyTorch file"
    if any(name.endswith(".npy") for name in names):
        return "TensorLayer .npz", "NumPy file"
    held = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise CheckpointError(f"{content.path} is a zip archive of {len(names)} file(s) ({held or 'none'}), not a weights "
                          "file. Unpack it, and give the weights file in it")


def _torch_tensors(content: FileContent) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numbers()):
            warnings.simplefilter("ignore")
            loaded = torch.load(io.BytesIO(content.data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error) or "invalid load key" in str(error):
            raise damaged(content, "PyTorch file", error) from error
        raise CheckpointError(
            f"{content.path} holds more than tensors, and would have to execute code to be read "
            f"({first_line(error)}); such a file is refused. Save its state dict alone, with its authors' "
            "program: torch.save(model.state_dict(), PATH)") from error
    state, notes = unwrapped(content.path, loaded)
    content.check_declared(sum(tensor.numel() * tensor.element_size() for tensor in state.values()))
    return {key: _array(content, key, value) for key, value in state.items()}, notes


def _numbers() -> list[Any]:
    """NumPy scalars in a training state (a best score, say) do no harm."""
    core: Any = getattr(np, "_core", None) or np.core   # its name before NumPy 2
    return [core.multiarray.scalar, np.dtype, type(np.dtype("float64")), type(np.dtype("float32")),
            type(np.dtype("int64"))]


def _safetensors(content: FileContent) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    return {key: _array(content, key, value) for key, value in load_safetensors(content.data).items()}, ()


def _array(content: FileContent, key: str, tensor: torch.Tensor) -> np.ndarray:
    """Turn a tensor into an array; half and quarter precision become float32, which holds all their values."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        what = ("on the meta device" if tensor.is_meta else "quantized" if tensor.is_quantized
                else str(tensor.dtype if tensor.is_complex() else tensor.layout).removeprefix("torch."))
        raise CheckpointError(f"{content.path}: {key} is {what}; expected plain tensors of real numbers. Convert them "
                              "with their authors' program and save again")
    tensor = tensor.detach()
    exact = not tensor.is_floating_point() or tensor.dtype in (torch.float32, torch.float64)
    return (tensor if exact else tensor.float()).resolve_neg().numpy()


Tensors = tuple[dict[str, np.ndarray], tuple[str, ...]]   # by key, and notes
READERS: Mapping[str, Callable[[FileContent], Tensors]] = {
    "PyTorch": _torch_tensors, "safetensors": _safetensors, "Keras HDF5": keras_tensors,
    "TensorLayer .npz": numpy_tensors}
