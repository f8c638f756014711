"""One call scores a weights file: what `tools/test.py` does, for use from Python."""
import os
from pathlib import Path
from typing import Any

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.evaluation.results import EvaluationResult
from k3dn_plugin.files import FolderLock
from k3dn_plugin.registry import DATASETS, check_arguments
from k3dn_plugin.zoo.load import LoadedRestorer, load_restorer


def evaluate_weights(weights: str | os.PathLike | LoadedRestorer, dataset: Any, protocol: EvaluationProtocol, *,
                     out_dir: str | os.PathLike, fresh: bool = False, **settings: Any) -> EvaluationResult:
    """Score a restorer and write per_image.csv, summary.json and pictures/.

    A killed evaluation goes on where it stopped, if weights, data, protocol and settings are the same; the
    results of others that lie in `out_dir` are moved into a folder of their own there.

    Args:
        weights: a `LoadedRestorer`, or what `load_restorer` takes.
        fresh: compute every image, also those whose rows are there.
        settings: of `evaluate`.

    Returns:
        the `EvaluationResult`.

    Raises:
        CheckpointError: the weights file is missing, damaged or of another program.
        DataError, OptionError, StorageError: as `evaluate`.
    """
    loaded = weights if isinstance(weights, LoadedRestorer) else load_restorer(weights)
    with FolderLock(out_dir, "scoring"):
        result = evaluate(loaded, dataset, protocol, out_dir=out_dir, resume=not fresh, **settings)
        result.write(out_dir)
    return result


def names_in(text: str | None) -> tuple[str, ...]:
    """Return the names in a list with commas, blanks around them left out."""
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def trained_weights(options) -> Path:
    """The best weights of the run that `options` describe, or the last where it had no validation.

    Raises:
        CheckpointError: the run has left none.
    """
    folder = Path(options.path.experiments_root) / options.name / "models"
    for name in ("best.safetensors", "last.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds no weights (best.safetensors): {options.name} has not been "
                          "trained here. Train it (python tools/train.py -opt "
                          f"{options.source() or 'FILE'}), or name a weights file with --weights")


def scored_dataset(options=None, store=None):
    """The data set to score on: the validation set of `options`, or another store read in the same way.

    Raises:
        OptionError: neither is given, or the option file has no validation set and no `store` is given.
    """
    spec = {}
    if options is not None and options.datasets.val is not None:
        spec = options.datasets.val.arguments()
    if store is not None:
        spec = {**(spec if "store" in spec else {"type": "DualPixelDataset"}), "store": str(store)}
    if not spec:
        raise OptionError("nothing to score on: give --data STORE (a prepared .lmdb folder), or an option "
                          "file with datasets.val")
    check_arguments(DATASETS, spec, path="datasets.val")
    return DATASETS.build(spec)


def usual_protocol(dataset) -> str:
    """The protocol of papers where the data allow it (16-bit sRGB), else its formulas for any data."""
    card = getattr(dataset, "card", None)
    return "dpdd16" if card is not None and card.bit_depth == 16 and not card.linear else "full_float"
