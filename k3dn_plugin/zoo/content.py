"""A weights file is read once: its bytes, and their hash, and what a published one holds, whatever its format."""
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.files import read_file

GIB = 2 ** 30
LARGEST_FILE = 8 * GIB       # no restorer's weights come near it, nor do training states
LARGEST_DECLARED = 8 * GIB   # bytes of all tensors that a file may say that it holds
EXPANSION = 64               # times the file's size that its tensors may take unpacked: weights hardly compress
FREE = 16 * 2 ** 20          # bytes that a file of any size may say that it holds


@dataclass(frozen=True)
class FileContent:
    """The bytes of a file, read once.

    Attributes:
        path: where it was read.
        data: all of it.
        sha256: of `data`, in hexadecimal.
    """

    path: Path
    data: bytes
    sha256: str

    def check_declared(self, size: int, what: str = "its tensors") -> None:
        """Raise `CheckpointError` where a file says that it holds far more than it can: before memory is taken."""
        bound = min(LARGEST_DECLARED, EXPANSION * len(self.data) + FREE)
        if size > bound:
            raise CheckpointError(
                f"{self.path}: {what} would take {size / GIB:,.2f} GiB of memory, though the file has "
                f"{len(self.data):,} bytes; at most {bound / GIB:,.2f} GiB is believed of such a file. It is damaged, "
                "or was made to fill the memory; it is refused")


@dataclass(frozen=True)
class OfficialFile:
    """Tensors of a published file.

    Attributes:
        path: where it was read.
        kind: the format in words.
        tensors: by official key, in the file's order, in the file's layout.
        notes: what was unwrapped or left out.
        sha256: of the file, or of the files that belong together.
    """

    path: Path
    kind: str
    tensors: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()
    sha256: str = ""


def read_content(path: str | os.PathLike[str]) -> FileContent:
    """Read a file once.

    Raises:
        CheckpointError: there is no such file, it cannot be read, it is not a regular file, or is larger than any
            weights.
    """
    data = read_file(path, most=LARGEST_FILE, error=CheckpointError)
    return FileContent(Path(path), data, hashlib.sha256(data).hexdigest())


def is_json_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether what a JSON text holds is a mapping."""
    return isinstance(value, dict)


def damaged(content: FileContent, kind: str, error: Exception) -> CheckpointError:
    """Return the error for a file that cannot be read to its end."""
    return CheckpointError(f"{content.path} is a {kind}, but damaged or cut short ({len(content.data):,} bytes: "
                           f"{first_line(error)}). Download or copy it again")


def first_line(error: BaseException) -> str:
    """Return the line of an error's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line or "class" in line), None)
    return (wanted or (lines[0] if lines else type(error).__name__))[:200]


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors in hexadecimal: of their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_hash(model: torch.nn.Module) -> str:
    """Return the first 16 digits of the `state_hash` of a model."""
    return state_hash(model.state_dict())[:16]
