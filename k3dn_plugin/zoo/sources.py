"""Where weights lie that a user names: a file, a folder, or a name of released weights."""
import os
import warnings
from pathlib import Path

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.files import user_path
from k3dn_plugin.registry import near

RELEASED = Path(__file__).parent / "released"     # weights that come with the package
PRETRAINED = ("model.safetensors", "config.json")  # in a folder of `save_pretrained`
RUN = ("models/best.safetensors", "models/last.safetensors")
TRAINED = "Training writes weights to experiments/<name>/models/ (best.safetensors, last.safetensors)"


def released_names() -> list[str]:
    """Return the names of the weights that come with the package."""
    return sorted(path.stem for path in RELEASED.glob("*.safetensors"))


def is_released(path: Path) -> bool:
    """Return whether a file is one of the weights that come with the package."""
    return path.stem in released_names() and path.resolve() == (RELEASED / path.name).resolve()


def find_weights(source: str | os.PathLike[str]) -> Path:
    """Return the file, or folder of published files, that a source names.

    Args:
        source: a weights file; a folder of `save_pretrained`, of a run (`experiments/NAME`) or of published files that
            belong together; a name of `released_names`. `~` and `$VARIABLES` are expanded. Where weights of the user's
            own have a released name, a text means the released ones, with a warning, and a `Path` the user's.

    Raises:
        CheckpointError: nothing lies there, or the folder holds no weights.
    """
    try:
        text = os.fspath(source)
    except TypeError:   # whatever a caller gives
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise CheckpointError(f"weights: expected a file, a folder or a name; found {source!r}")
    path = user_path(text)
    if text in released_names():
        own = _holds_weights(path)
        if not own or isinstance(source, str):
            if own:
                warnings.warn(f"{text} is taken for the released weights of that name. To take {path} in this folder, "
                              f"name it {os.path.join(os.curdir, text)}", stacklevel=3)
            return RELEASED / f"{text}.safetensors"
    try:
        if path.is_dir():
            return _in_folder(path)
        if os.path.lexists(path) and (path.exists() or not path.is_symlink()):
            return path
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    raise CheckpointError(_missing(path))


def _holds_weights(path: Path) -> bool:
    """Return whether a path is a file, or a folder of `save_pretrained` or of a run."""
    return path.is_file() or path.is_dir() and _in_folder(path) != path


def _in_folder(folder: Path) -> Path:
    """Return the weights in a folder, or the folder itself where it may hold published files of several parts."""
    if (folder / PRETRAINED[0]).is_file():
        return folder / PRETRAINED[0]
    for name in RUN:
        if (folder / name).is_file():
            return folder / name
    return folder


def _missing(path: Path) -> str:
    try:
        there = sorted(p.name for p in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
    except OSError:
        there = []
    held = f"{path.parent} holds {', '.join(there[:5])}." if there else f"{path.parent} holds no weights."
    released = released_names()
    names = f" Released weights: {', '.join(released) or 'none in this version'}." if len(path.parts) == 1 else ""
    return f"no weights file at {path}: {held}{near(path.name, [*there, *released])}{names} {TRAINED}"
