"""Reads the files in which published weights come, without ever executing what a pickle asks for.

| format | of | read with |
|---|---|---|
| PyTorch, zip or older | K3DN, Restormer, DRBNet, IFAN, BaMBNet, DDDNet, DeepRFT, SFNet, INIKNet | `torch.load(weights_only=True)` |
| Keras HDF5 | DPDNet, RDPD | h5py, layers in the order of `layer_names` |
| TensorLayer `.npz`, named arrays | DMENet | NumPy |
| TensorLayer `.npz`, a nameless list (a pickled object array) | KPAC | an unpickler that admits arrays only |
| safetensors of others | converted files | safetensors |
"""
import io
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from k3dn_plugin.errors import CheckpointError, DependencyError

# Where training programs put the state dict; averaged weights first, since those are what is published.
WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model_state", "model", "net", "network",
            "weights")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
KERAS_ORDER = {"kernel": 0, "recurrent_kernel": 1, "bias": 2}

# All that the pickles of NumPy arrays call, under old and new module names.
_ARRAYS = {(module.format(core), name)
           for core in ("core", "_core")
           for module, name in (("numpy.{}.multiarray", "_reconstruct"), ("numpy.{}.multiarray", "scalar"),
                                ("numpy.{}.numeric", "_frombuffer"))}
_ARRAYS |= {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


@dataclass(frozen=True)
class OfficialFile:
    """Tensors of a published file.

    Attributes:
        path: where it was read.
        kind: the format in words.
        tensors: by official key, in the file's order, in the file's layout.
        notes: what was unwrapped or left out.
    """

    path: Path
    kind: str
    tensors: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def read_official_file(path) -> OfficialFile:
    """The tensors of a published weights file, recognised by its first bytes, not by its name.

    Raises:
        CheckpointError: the file is damaged, holds no tensors, or could only be read by executing code.
        DependencyError: a Keras file, and h5py is not installed.
    """
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(16)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _keras(path)
    if head[8:9] == b"{":
        return _safetensors(path)
    if head.startswith(b"PK"):
        return _npz(path) if _holds_arrays(path) else _torch(path)
    if head.startswith(b"\x80"):
        return _torch(path)
    what = "an empty file" if not head else f"a file that begins with {head[:8]!r}"
    raise CheckpointError(f"{path} is {what}; expected weights: PyTorch (.pth, .pt, .pkl), Keras (.hdf5), "
                          "TensorLayer (.npz) or safetensors. Is it the download's error page, or an archive to "
                          "be unpacked first?")


def _torch(path):
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numbers()):
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and would have to execute code to be read "
            f"({_first_line(error)}); such a file is refused. Save its state dict alone, with its authors' "
            "program: torch.save(model.state_dict(), PATH)") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, "PyTorch file", error) from error
    state, notes = _unwrapped(path, loaded)
    return OfficialFile(path, "PyTorch", {key: _array(value) for key, value in state.items()}, tuple(notes))


def _numbers():
    """NumPy scalars in a training state (a best score, say) do no harm."""
    multiarray = getattr(np, "_core", None) or np.core
    return [multiarray.multiarray.scalar, np.dtype, type(np.dtype("float64")), type(np.dtype("float32")),
            type(np.dtype("int64"))]


def _unwrapped(path, loaded):
    notes = []
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            raise CheckpointError(f"{path} holds a {type(loaded).__name__}; expected a state dict, alone or "
                                  f"under one of {', '.join(WRAPPERS)}")
        inside = [name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if not inside:
            break
        notes.append(f"under {inside[0]!r}" + (f", not {inside[1]!r}" if len(inside) > 1 else ""))
        loaded = loaded[inside[0]]
    state = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise CheckpointError(f"{path} holds no tensors (its keys: {', '.join(map(str, list(loaded)[:5]))}); "
                              f"expected a state dict, alone or under one of {', '.join(WRAPPERS)}")
    for prefix in 2 * PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            notes.append(f"without the prefix {prefix!r}")
    return state, notes


def _array(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def _safetensors(path):
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: _array(file.get_tensor(key)) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, "safetensors file", error) from error
    return OfficialFile(path, "safetensors", tensors)


def _keras(path):
    try:
        import h5py  # slow to import, and needed for this kind alone
    except ImportError as error:
        raise DependencyError(f"{path} is a Keras file, which needs h5py: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            group = file["model_weights"] if "model_weights" in file else file
            layers = _names(group, "layer_names")
            if layers is None:
                raise CheckpointError(
                    f"{path} is an HDF5 file without the attribute layer_names, which tells the order of "
                    "Keras's layers; expected a model saved by Keras 2 (.hdf5, .h5)")
            tensors = {}
            for layer in layers:
                names = sorted(_names(group[layer], "weight_names") or (), key=_kind_order)
                tensors.update({_unused(name, tensors): np.asarray(group[layer][name]) for name in names})
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise _damaged(path, "Keras file", error) from error
    return OfficialFile(path, "Keras HDF5", tensors)


def _names(group, attribute):
    """A list of names, which Keras splits over `attribute0`, `attribute1`, ... where it is long."""
    if attribute in group.attrs:
        values = list(group.attrs[attribute])
    else:
        values, part = [], 0
        while f"{attribute}{part}" in group.attrs:
            values += list(group.attrs[f"{attribute}{part}"])
            part += 1
        if not part:
            return None
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


def _kind_order(name):
    return KERAS_ORDER.get(name.split("/")[-1].split(":")[0], len(KERAS_ORDER))


def _unused(name, taken):
    return name if name not in taken else f"{len(taken)}/{name}"


def _holds_arrays(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(path, "PyTorch or NumPy file", error) from error


def _npz(path):
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                tensors.update(_npy(path, member.removesuffix(".npy"), archive.read(member)))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise _damaged(path, "NumPy file", error) from error
    return OfficialFile(path, "TensorLayer .npz", tensors)


def _npy(path, name, data):
    """`{key: array}` of one member; an object array gives its elements, numbered."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(stream)
    if not dtype.hasobject:
        return {name: np.load(io.BytesIO(data), allow_pickle=False)}
    try:
        found = _ArrayUnpickler(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(f"{path}: its member {name} is a pickle that holds more than arrays "
                              f"({_first_line(error)}); such a file is refused") from error
    return {f"{name}.{i}": np.asarray(value) for i, value in enumerate(np.asarray(found, dtype=object).ravel())}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what NumPy's own pickles of arrays call, and nothing else."""

    def find_class(self, module, name):
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _damaged(path, kind, error):
    if isinstance(error, CheckpointError):
        return error
    return CheckpointError(f"{path} is a {kind}, but damaged or cut short ({path.stat().st_size:,} bytes: "
                           f"{_first_line(error)}). Download or copy it again")


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line or "class" in line), None)
    return (wanted or (lines[0] if lines else type(error).__name__))[:200]
