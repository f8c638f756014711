"""Folders of weights as Hugging Face's hub knows them: `model.safetensors`, `config.json`, and a card, `README.md`."""
# pyright: reportUnnecessaryIsInstance=false
# What callers give is checked here at run time, whatever the signatures promise.
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from k3dn_plugin import __version__
from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import CheckpointError, DataError, DependencyError
from k3dn_plugin.files import atomic_write, user_path
from k3dn_plugin.zoo.content import weights_hash
from k3dn_plugin.zoo.sources import PRETRAINED
from k3dn_plugin.zoo.weights import save_weights

CARD = "README.md"
HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
LICENSE = re.compile(r"[\w.+-]{1,60}", re.ASCII)


def write_pretrained(folder: str | os.PathLike[str], restorer: Restorer, *, network_g: Mapping[str, Any],
                     provenance: Mapping[str, Any], license: str | None = None) -> Path:
    """Write the three files; see `LoadedRestorer.save_pretrained`.

    Raises:
        DataError: the license is no identifier.
        StorageError: the folder cannot be written.
    """
    if license is not None and not (isinstance(license, str) and LICENSE.fullmatch(license)):
        raise DataError(f"license {license!r}: expected an identifier such as apache-2.0, or None")
    folder = Path(folder)
    digest = weights_hash(restorer)
    save_weights(folder / PRETRAINED[0], restorer, network_g=network_g, provenance=provenance)
    with atomic_write(folder / PRETRAINED[1], "w", encoding="utf-8") as file:
        json.dump({"library_name": "k3dn_plugin", "version": __version__, "network_g": dict(network_g),
                   "weights_hash": digest}, file, indent=2)
    with atomic_write(folder / CARD, "w", encoding="utf-8") as file:
        file.write(model_card(restorer, digest, network_g=network_g, provenance=provenance, license=license))
    return folder


def model_card(restorer: Restorer, digest: str, *, network_g: Mapping[str, Any], provenance: Mapping[str, Any],
               license: str | None = None) -> str:
    """Return the Markdown of a model card: what the restorer is, what it reads, where its weights come from.

    It begins with `front_matter`.
    """
    card = restorer.card
    lines = [*front_matter(license), "", f"# {card.title}", "",
             f"{card.paper} ({card.venue} {card.year}).", "",
             f"Views: {', '.join(card.views)}. Weights hash: `{digest}`.", "", "```python",
             "import k3dn_plugin as k3dn", 'restorer = k3dn.from_pretrained("THIS_FOLDER_OR_REPOSITORY")',
             "sharp = restorer.restore(left, right)   # NumPy (H, W, 3)", "```", "", "## Settings", "", "```json",
             json.dumps(dict(network_g), indent=2), "```", "", "## Where the weights come from", "", "```json",
             json.dumps(dict(provenance), indent=2), "```", ""]
    return "\n".join(lines)


def front_matter(license: str | None) -> list[str]:
    """Return the lines that a card begins with, for the hub: license where it is known, library, task and tags."""
    front = {**({"license": license.lower()} if license else {}), "library_name": "k3dn_plugin",
             "pipeline_tag": "image-to-image",
             "tags": ["image-restoration", "deblurring", "defocus-deblurring", "dual-pixel"]}
    return ["---", *yaml.safe_dump(front, sort_keys=False).splitlines(), "---"]


def pretrained_folder(source: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """Return the folder of weights that `source` names, on this machine or, fetched first, on the hub.

    Args:
        source: a folder; or `owner/name` of a repository on Hugging Face's hub, where no such folder is here.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: neither is there, or the repository cannot be fetched.
        DependencyError: it is a repository, and huggingface_hub is not installed.
    """
    if not isinstance(source, (str, os.PathLike)):   # whatever a caller gives
        raise CheckpointError(f"from_pretrained: expected a folder or owner/name; found {source!r}")
    path, name = user_path(source), os.fspath(source)
    # `experiments/k3dn_dmeo` is a misspelled folder, where there is a folder `experiments`.
    if os.path.exists(path) or not HUB_NAME.fullmatch(name) or os.path.exists(path.parent):
        if not os.path.isdir(path):
            raise CheckpointError(f"{path}: expected a folder that save_pretrained wrote ({', '.join(PRETRAINED)}), or "
                                  "owner/name of a repository on Hugging Face's hub")
        return path
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]  # optional, and only repositories need it
    except ImportError:
        raise DependencyError(f"{name} is no folder here. To fetch it from Hugging Face's hub: pip install "
                              "huggingface_hub") from None
    try:
        hub: Any = huggingface_hub   # its types are not complete
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=[*PRETRAINED, CARD]))
    except Exception as error:  # whatever the network or the hub runs into
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"{name} is no folder here, and could not be fetched from Hugging Face's hub "
                              f"({reason[:200]})") from None
