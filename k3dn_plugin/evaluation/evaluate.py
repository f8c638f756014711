"""Scores a restorer on a data set by a protocol: one row an image, resumable, shared among processes."""
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import DataError
from k3dn_plugin.evaluation.diagnostics import check_names, diagnose, without_truth
from k3dn_plugin.evaluation.maps import check_map_metrics, map_scores
from k3dn_plugin.evaluation.pictures import save_comparison
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.evaluation.provenance import identity, provenance
from k3dn_plugin.evaluation.results import EvaluationResult, ImageRow
from k3dn_plugin.evaluation.shares import collected, row_file
from k3dn_plugin.files import file_name, file_names
from k3dn_plugin.inference.frames import FrameRestorer, Progress
from k3dn_plugin.inference.progress import ProgressBar
from k3dn_plugin.registry import MAP_METRICS, PROTOCOLS
from k3dn_plugin.zoo.load import LoadedRestorer, load_restorer


def evaluate(restorer: LoadedRestorer | Restorer, dataset: Any, protocol: EvaluationProtocol | str, *,
             with_input: bool = True, diagnostics: Sequence[str] = (), map_metrics: Sequence[str] = (),
             save_pictures: int = 0, out_dir: str | os.PathLike[str] | None = None, rank: int = 0,
             world_size: int = 1, sharing: int | None = None,
             from_main: Callable[[Callable[[], Any]], Any] | None = None, progress: bool | None = None,
             resume: bool = False) -> EvaluationResult:
    """Restore and score every image of `dataset`, or this process's share of them.

    The restorer is used in evaluation mode and left in the mode that it was in.

    Args:
        restorer: a `LoadedRestorer`, whose inference settings hold; a `Restorer` runs where its weights lie, whole
            where memory allows.
        dataset: of samples without random choices. Without `gt`, only diagnostics and map metrics that need none are
            computed.
        protocol: an `EvaluationProtocol`, or the name of a registered one.
        with_input: score the blurred center view too.
        diagnostics: names of further scores (`diagnostics.py`).
        map_metrics: names of scores of the map that the restorer predicts, against the sample's (`maps.py`).
        save_pictures: how many images get a comparison picture, spread evenly over the data set.
        out_dir: for rows as they come (`per_image.csv`) and `pictures/`; None writes nothing. The summary is
            written by `EvaluationResult.write`.
        rank, world_size: this process among those that share the work; of the images that are left to do, every
            `world_size`-th one is its.
        sharing: processes that share this one's memory, where no bound is set; None takes all.
        from_main: gives all processes what a function returns on the first (`Processes.from_main`). Several processes
            need it to resume: what is left to do is then the same for all.
        progress: True for a bar on standard error, False for none, None for one where that is a terminal.
        resume: keep the rows in `out_dir` that belong to the same weights, data, protocol and settings.

    Returns:
        this process's share; `EvaluationResult.merged` puts shares together.

    Raises:
        DataError: the data set is empty, two images have one name, or an image has no truth.
        OptionError: the protocol does not fit the data, or the settings do not fit the restorer.
        StorageError: `out_dir` cannot be written.
    """
    if not isinstance(protocol, EvaluationProtocol):
        built: EvaluationProtocol = PROTOCOLS.build({"type": protocol})
        protocol = built
    check_data(dataset, protocol)
    check_names(diagnostics)
    check_map_metrics(map_metrics)
    was_training = (restorer.restorer if isinstance(restorer, LoadedRestorer) else restorer).training
    loaded = restorer if isinstance(restorer, LoadedRestorer) else load_restorer(restorer, device=_device_of(restorer))
    if world_size > 1:
        loaded = replace(loaded, inference=loaded.inference.changed(share=sharing or world_size))
    settings = {**loaded.inference.facts(), "with_input": with_input, "diagnostics": list(diagnostics),
                "map_metrics": list(map_metrics)}
    if getattr(loaded.restorer, "maps", ()):
        settings["maps"] = loaded.restorer.maps_hash()
    origin = provenance(loaded.restorer, dataset, settings=settings, device=loaded.device, weights=loaded.facts,
                        protocol=protocol, network_g=loaded.settings)
    result = EvaluationResult(rows=[], protocol=protocol.facts(), provenance=origin)
    kept, file, own = {}, None, identity(origin, result.protocol)
    if out_dir and (world_size == 1 or from_main is not None):
        kept, damaged = (from_main or _call)(lambda: collected(out_dir, own, resume=resume))
        result.damaged = damaged if rank == 0 else 0
    if out_dir:
        file = row_file(out_dir, own, rank, world_size)
        if world_size > 1:
            file.start([])
    pictured = spread(save_pictures, len(dataset)) if out_dir else ()
    run = loaded.frames
    names, files = {}, file_names(_all_names(dataset))
    done = {index: row for index, row in kept.items() if index not in pictured or not row.input_scores
            or picture_path(out_dir or "", row.name, files).exists()}
    mine = [index for index in range(len(dataset)) if index not in done][rank::world_size]
    if rank == 0:
        result.kept = len(done)
        result.pictures += [path for index in sorted(set(pictured) & done.keys())
                            if (path := picture_path(out_dir or "", done[index].name, files)).exists()]
    try:
        if rank == 0:
            result.rows += done.values()
            for row in result.rows:
                check_name(row, names)
        with ProgressBar(len(mine), unit="image", title=protocol.name, shown=progress if rank == 0 else False) as bar:
            for index in mine:
                row, images = _score(run, dataset, index, protocol, with_input, diagnostics, map_metrics, bar.tile)
                if file is not None and index not in kept:
                    file.append(row)
                if out_dir and index in pictured and images["truth"] is not None:
                    result.pictures.append(save_comparison(
                        picture_path(out_dir, row.name, files), images, row, protocol))
                check_name(row, names)
                result.rows.append(kept.get(index, row))
                bar.next()
        result.rows.sort(key=lambda row: row.index)
    finally:
        loaded.restorer.train(was_training)
    return result


def check_data(dataset: Any, protocol: EvaluationProtocol) -> None:
    """Raise an error unless a data set can be scored by a protocol, as far as its card tells.

    Raises:
        DataError: it is empty.
        OptionError: the protocol does not fit it.
    """
    if len(dataset) == 0:
        raise DataError(f"{type(dataset).__name__} holds no image to score; check its store or folder")
    if getattr(dataset, "card", None) is not None:
        protocol.check(dataset.card)


def _device_of(restorer: Restorer) -> str:
    first = next(restorer.parameters(), None)
    return "cpu" if first is None else str(first.device)


def _call(function: Callable[[], Any]) -> Any:
    return function()


def picture_path(out_dir: str | os.PathLike[str], name: str, files: Mapping[str, str] | None = None) -> Path:
    """Return where an image's comparison picture lies; `files` has the names of all files (`file_names`)."""
    return Path(out_dir) / "pictures" / f"{(files or {}).get(name) or file_name(name)}.png"


def spread(count: int, length: int) -> set[int]:
    """Return `count` indices spread evenly over `range(length)`, the first and the last among them."""
    count = min(count, length)
    return {round(i * (length - 1) / max(count - 1, 1)) for i in range(count)}


def _score(run: FrameRestorer, dataset: Any, index: int, protocol: EvaluationProtocol, with_input: bool,
           diagnostics: Sequence[str], map_metrics: Sequence[str], progress: Progress) -> tuple[ImageRow, dict]:
    """The `ImageRow` of one image, and its images for a picture."""
    sample = dataset[index]
    name, gt = str(sample.get("name", index)), sample.get("gt")
    if gt is None:
        diagnostics = [one for one in diagnostics if one in without_truth()]
        if not diagnostics and not map_metrics:
            raise DataError(f"{name} has no truth (`gt`) to score against. What needs none: --diagnostics "
                            f"{','.join(without_truth())}, and where there is a known map --map-metrics "
                            f"{','.join(MAP_METRICS.names())}")
    prepared = protocol.prepare(sample)
    if gt is not None:
        prepared = {**prepared, "sharp": protocol.fed(prepared["gt"])}
    card = getattr(dataset, "card", None)
    if card is not None:
        prepared["pixel_maps"] = [map_ for map_, unit in card.maps.items() if unit.lower().startswith(("px", "pixel"))]
    began = time.perf_counter()
    frame = run(prepared["lq"][None], prepared["center"][None], run.maps_of(sample), progress=progress)
    seconds = time.perf_counter() - began
    restored = protocol.finish(frame.image[0], prepared)
    blurred = protocol.do_nothing(sample, prepared)
    further, of_input = diagnose(diagnostics, run, sample, prepared, restored, blurred)
    further.update(map_scores(map_metrics, run, sample, prepared))
    known = gt is not None
    row = ImageRow(
        index=index, name=name, group=group_of(dataset, sample),
        scores={**(protocol.score(restored, prepared["gt"]) if known else {}), **further},
        input_scores={**protocol.score(blurred, prepared["gt"]), **of_input} if with_input and known else {},
        seconds=seconds, tiling=frame.tiling, same_as_whole=frame.same_as_whole)
    return row, {"input": blurred, "restored": restored, "truth": prepared["gt"] if known else None,
                 "views": prepared["lq"]}


def group_of(dataset: Any, sample: Mapping) -> str:
    """Return the label by which an image's scores are averaged beside the mean over all ("indoor"), or ""."""
    tags: Any = getattr(dataset, "tags", None)
    tags = tags(sample["name"]) if callable(tags) else {}
    return str(sample.get("group") or tags.get("place", ""))


def _all_names(dataset: object) -> list[str]:
    """The names of all images where the data set knows them without reading its frames."""
    return list(getattr(dataset, "names", None) or getattr(getattr(dataset, "store", None), "names", None) or ())


def check_name(row: ImageRow, names: dict[str, int]) -> None:
    """Names are how rows of different results are paired, so each may occur once."""
    if row.name in names:
        raise DataError(f"the images {names[row.name]} and {row.index} of the data set have one name, "
                        f"{row.name!r}; names identify images in results. Rename one and prepare again")
    names[row.name] = row.index
