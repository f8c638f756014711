"""One call scores a weights file: what `k3dn test` does, for use from Python."""
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from k3dn_plugin.data.store import open_store
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.evaluation.evaluate import check_name, evaluate
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.evaluation.results import EvaluationResult
from k3dn_plugin.evaluation.shares import Processes
from k3dn_plugin.files import FolderLock
from k3dn_plugin.options import Options
from k3dn_plugin.registry import DATASETS, PROTOCOLS, check_arguments
from k3dn_plugin.zoo.load import LoadedRestorer, load_restorer


def evaluate_weights(weights: str | os.PathLike[str] | LoadedRestorer, dataset: Any, protocol: EvaluationProtocol, *,
                     out_dir: str | os.PathLike[str], fresh: bool = False, group: Processes | None = None,
                     **settings: Any) -> EvaluationResult:
    """Score a restorer and write per_image.csv, summary.json and pictures/.

    A killed evaluation goes on where it stopped, if weights, data, protocol and settings are the same; the
    results of others that lie in `out_dir` are moved into a folder of their own there.

    Args:
        weights: a `LoadedRestorer`, or what `load_restorer` takes.
        fresh: compute every image, also those whose rows are there.
        group: the processes that share the work; each calls this, and the first one writes. None: this one alone.
        settings: of `evaluate`.

    Returns:
        the `EvaluationResult`, of all processes.

    Raises:
        CheckpointError: the weights file is missing, damaged or of another program.
        DataError, OptionError, StorageError: as `evaluate`.
    """
    loaded = weights if isinstance(weights, LoadedRestorer) else load_restorer(weights)
    with contextlib.ExitStack() as stack:
        if group is None or group.size == 1:
            stack.enter_context(FolderLock(out_dir, "scoring"))
            result = evaluate(loaded, dataset, protocol, out_dir=out_dir, resume=not fresh, **settings)
            result.write(out_dir)
            return result
        group.from_main(lambda: _enter(stack, FolderLock(out_dir, "scoring")))
        place = (socket.gethostname(), str(loaded.device))
        mine = evaluate(loaded, dataset, protocol, out_dir=out_dir, resume=not fresh, rank=group.rank,
                        world_size=group.size, sharing=group.gather(place).count(place), from_main=group.from_main,
                        **settings)
        result = EvaluationResult.merged(group.gather(mine))
        group.from_main(lambda: _write(result, out_dir))
        return result


def _enter(stack: contextlib.ExitStack, lock: FolderLock) -> None:
    stack.enter_context(lock)


def _write(result: EvaluationResult, out_dir: str | os.PathLike[str]) -> None:
    names: dict[str, int] = {}
    for row in result.rows:
        check_name(row, names)  # each process has seen its own images alone
    result.write(out_dir)


def names_in(text: str | None) -> tuple[str, ...]:
    """Return the names in a list with commas, blanks around them left out."""
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def trained_weights(options: Options) -> Path:
    """Return the best weights of the run that `options` describe, or the last where it had no validation.

    Raises:
        CheckpointError: the run has left none.
    """
    folder = Path(options.path.experiments_root) / options.name / "models"
    for name in ("best.safetensors", "last.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds no weights (best.safetensors): {options.name} has not been "
                          f"trained here. Train it (k3dn train -opt {options.source() or 'FILE'}), or "
                          "name a weights file with --weights")


def scored_dataset(options: Options | None = None, store: str | os.PathLike[str] | None = None) -> Any:
    """Return the data set to score on: the validation set of `options`, or another store read in the same way.

    Raises:
        OptionError: neither is given, or the option file has no validation set and no `store` is given.
    """
    return DATASETS.build(scored_spec(options, store))


def scored_spec(options: Options | None = None, store: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Return the mapping that builds `scored_dataset`; raises as that does."""
    spec = {}
    if options is not None and options.datasets.val is not None:
        spec = options.datasets.val.arguments()
    if store is not None:
        spec = {**(spec if "store" in spec else {"type": "DualPixelDataset"}), "store": str(store)}
    if not spec:
        raise OptionError("nothing to score on: give --data STORE (a prepared .lmdb folder), or an option "
                          "file with datasets.val")
    check_arguments(DATASETS, spec, path="datasets.val")
    if spec["type"] == "DualPixelDataset" and "truth" not in spec and not _has_truth(spec["store"]):
        spec = {**spec, "truth": False}
    return spec


def _has_truth(store: str) -> bool:
    return any("sharp" in scene.views for scene in open_store(store).manifest.scenes.values())


def usual_protocol(dataset: Any) -> str:
    """Return the usual protocol of a data set.

    That is the one that its manifest names; else the one that is usual for its name (`usual_for`); else by its light
    and bit depth: the papers' where the data allow it (16-bit sRGB), its formulas for other data.
    """
    card = getattr(dataset, "card", None)
    if card is None:
        return "full_float"
    named = card.facts.get("protocol")
    if named in PROTOCOLS.names():
        return str(named)
    for name in PROTOCOLS.names():
        protocol = PROTOCOLS.get(name)
        if card.name in protocol.usual_for and protocol.bit_depth in (None, card.bit_depth) and \
                protocol.linear == card.linear:
            return name
    if card.linear:
        return "linear_float"
    return "dpdd16" if card.bit_depth == 16 else "full_float"
