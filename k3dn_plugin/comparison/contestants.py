"""Who is compared: trained weights, recipes to be trained, or doing nothing."""
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.evaluation.run import trained_weights
from k3dn_plugin.files import user_path
from k3dn_plugin.option_files import find_option_file
from k3dn_plugin.options import load_options
from k3dn_plugin.zoo.baseline import DO_NOTHING
from k3dn_plugin.zoo.sources import find_weights, released_names

ORIGINS = {"trained": "trained here", "official": "official weights", "given": "given weights",
           "nothing": "center view"}


@dataclass(frozen=True)
class Contestant:
    """One row of the comparison.

    Attributes:
        label: its name in tables; unique.
        recipe: the option file, or None for given weights.
        weights: the weights file, or None for a recipe that is still to be trained.
        overrides: `--set` texts on top of the recipe.
    """

    label: str
    recipe: Path | str | None = None
    weights: Path | str | None = None
    overrides: tuple[str, ...] = field(default=())


def contestants_of(entries: Sequence[str], *, train: bool, overrides: Sequence[str] = ()) -> list[Contestant]:
    """Return the contestants that a user named: option files, weights, `center`, each perhaps `LABEL=...`.

    The name of released weights means these, unless a recipe of that name is to be trained or has been trained here.

    Args:
        entries: as on the command line.
        train: whether option files are to be trained; else their trained weights are scored.
        overrides: `--set` texts for every option file.

    Raises:
        OptionError: an entry is neither, or two have one label.
        CheckpointError: a recipe has not been trained, and is not to be.
    """
    found = [_contestant(entry, train, tuple(overrides)) for entry in entries]
    labels = [one.label for one in found]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double:
        raise OptionError(f"two contestants are called {double!r}; name them apart: LABEL=FILE")
    if not found:
        raise OptionError("nothing to compare: give option files (.yml), weights files, or `center`")
    return found


def _contestant(entry: str, train: bool, overrides: tuple[str, ...]) -> Contestant:
    label, equals, path = entry.partition("=")
    # A path may have an equals sign, and a label any character.
    if not equals or (user_path(entry).exists() and not user_path(path).exists() and path != DO_NOTHING):
        label, path = "", entry
    elif not label.strip():
        raise OptionError(f"{entry}: expected LABEL=FILE, found no label before the equals sign")
    if path == DO_NOTHING:
        return Contestant(label or "blurred input", weights=DO_NOTHING)
    name, path = path, user_path(path)
    released = name in released_names() and not path.exists()
    if not path.suffix and find_option_file(path).is_file():  # a shipped recipe by its name
        path = find_option_file(path)
    if path.suffix in (".yml", ".yaml"):
        options = load_options(path, overrides)
        label = label or options.name
        if train:
            return Contestant(label, recipe=path, overrides=overrides)
        try:
            return Contestant(label, recipe=path, weights=trained_weights(options), overrides=overrides)
        except CheckpointError:
            if not released:
                raise
    if released:
        return Contestant(label or name, weights=find_weights(name))
    if not path.exists():
        raise OptionError(f"{entry}: no such file; expected an option file (.yml), a weights file, a name of `k3dn "
                          "list --weights`, or `center`")
    return Contestant(label or path.stem, weights=path)
