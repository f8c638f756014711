"""What a published weights file holds, whatever its format."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.content import FileContent


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


def damaged(content: FileContent, kind: str, error: Exception) -> CheckpointError:
    """Return the error for a file that cannot be read to its end."""
    return CheckpointError(f"{content.path} is a {kind}, but damaged or cut short ({len(content.data):,} bytes: "
                           f"{first_line(error)}). Download or copy it again")


def first_line(error: BaseException) -> str:
    """Return the line of an error's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line or "class" in line), None)
    return (wanted or (lines[0] if lines else type(error).__name__))[:200]
