"""The comparison itself: train where asked, score, measure, and write the report's folder.

OUT/plan.json                  what is compared; another plan is refused in the same folder
OUT/runs/LABEL_seedN/          a training: recipe, states, weights, trained.json
OUT/scores/LABEL[_seedN]/      its scores: per_image.csv, scenes/, scored.json
OUT/cost/                      what restoring costs: measured.json
OUT/report.html, table.*, results.csv, figures
"""
import json
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import cast

import yaml
from torch.utils.data import Dataset

from k3dn_plugin.comparison.backends.local import LocalBackend
from k3dn_plugin.comparison.budget import iterations_of, shortened
from k3dn_plugin.comparison.collect import Comparison, Entry
from k3dn_plugin.comparison.contestants import ORIGINS, Contestant
from k3dn_plugin.comparison.jobs import Backend, Job, Needs, Shared, alone, read_json
from k3dn_plugin.comparison.pictures import chosen_scenes
from k3dn_plugin.comparison.report import write_report
from k3dn_plugin.comparison.schedule import run_jobs
from k3dn_plugin.comparison.settings import Settings
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.evaluation.provenance import (
    code_hash,
    data_hash,
    describe_data,
    foreign_code,
    settings_hash,
    text_hash,
    versions,
)
from k3dn_plugin.evaluation.results import plain, write_json
from k3dn_plugin.evaluation.run import scored_dataset, scored_spec, usual_protocol
from k3dn_plugin.files import FolderLock, atomic_write, file_hash, file_names
from k3dn_plugin.options import Options, load_options
from k3dn_plugin.registry import DATASETS, PROTOCOLS
from k3dn_plugin.training.stages import plan_stages
from k3dn_plugin.zoo.baseline import DO_NOTHING
from k3dn_plugin.zoo.load import load_restorer
from k3dn_plugin.zoo.weights import read_weights


def compare(contestants: Sequence[Contestant], settings: Settings, *, log: Callable[[str], object] = print,
            backend: Backend | None = None) -> Path:
    """Run the comparison and write its folder; returns the path of report.html.

    Interrupted at any moment, the same call goes on: training from its last state, scoring from its last image.

    Args:
        backend: where jobs run; None takes processes of this machine.

    Raises:
        OptionError: the folder holds another comparison, or the reference is not a contestant.
        StorageError: another process is at this folder.
    """
    labels = [one.label for one in contestants]
    if settings.reference is not None and settings.reference not in labels:
        raise OptionError(f"--reference {settings.reference!r}: not one of {', '.join(labels)}")
    if len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds, default=-1) < 0:
        raise OptionError(f"--seeds {' '.join(map(str, settings.seeds))}: expected different whole numbers from 0 on")
    dataset = scored_dataset(None, settings.data)
    if not dataset.card.truth:
        raise OptionError(f"{settings.data} has no truth to compare by; `k3dn test` computes what needs none")
    name = settings.protocol or usual_protocol(dataset)
    protocol = PROTOCOLS.build({"type": name, "extra_metrics": settings.metrics})
    protocol.check(dataset.card)
    backend = backend or LocalBackend(jobs=settings.jobs, devices=settings.devices, threads=settings.cpus)
    with FolderLock(settings.out, "comparing"):
        _keep_plan(contestants, settings, name, dataset)
        files = file_names(labels)
        entries = [Entry(one, _origin(one), files[one.label], chosen_on=_chosen_on(one)) for one in contestants]
        backend.check(_shared(contestants, settings))
        _train(entries, settings, backend, log)
        contents = _score(entries, settings, protocol, dataset, backend, log)
        log("measuring parameters, MACs, latency and memory")
        _measure(entries, settings, contents, backend, log)
        return write_report(Comparison.of(entries, settings, name, dataset))


def _keep_plan(contestants: Sequence[Contestant], settings: Settings, protocol: str, dataset: Dataset) -> None:
    """Write plan.json, or refuse a folder that holds another plan."""
    plan = plain({
        "contestants": [{"label": c.label, "recipe": str(c.recipe or ""), "weights": str(c.weights or ""),
                         "overrides": list(c.overrides)} for c in contestants],
        "data": str(settings.data), "data_hash": data_hash(dataset), "protocol": protocol,
        "budget": settings.budget.words() if settings.budget else None, "seeds": list(settings.seeds),
        "metrics": list(settings.metrics), "diagnostics": list(settings.diagnostics)})
    path = settings.out / "plan.json"
    if not path.is_file():
        write_json(path, plan)
        return
    there = read_json(path)
    if there is None:
        raise OptionError(f"{path} is damaged: expected the JSON mapping that compare wrote. Delete this file to go on "
                          "with what lies in the folder, whose results are checked one by one")
    if there != plan:
        changed = [key for key in plan if there.get(key) != plan[key]]
        raise OptionError(f"{settings.out} holds another comparison (different: {', '.join(changed)}). Give the "
                          "same command to go on with it, or another --out")


def _shared(contestants: Sequence[Contestant], settings: Settings) -> Shared:
    """What all jobs read and write."""
    datasets, imports = [scored_spec(None, settings.data)], []
    for one in contestants:
        if one.recipe is None:
            continue
        options = load_options(one.recipe, one.overrides)
        imports += [name for name in options.custom_imports if name not in imports]
        if one.weights is None:
            blocks = [stage.dataset.arguments() for stage in plan_stages(options)]
            blocks += [options.datasets.val.arguments()] if options.datasets.val is not None else []
            datasets += [block for block in blocks if block not in datasets]
    weights = [str(one.weights) for one in contestants if one.weights is not None and str(one.weights) != DO_NOTHING]
    return Shared(settings.out, datasets, imports, weights, needs=_needs(settings))


def _origin(contestant: Contestant) -> str:
    if contestant.weights is None:
        return ORIGINS["trained"]
    if str(contestant.weights) == DO_NOTHING:
        return ORIGINS["nothing"]
    origin = read_weights(contestant.weights).provenance.get("origin")
    if origin == "official weights":
        return ORIGINS["official"]
    return ORIGINS["trained"] if contestant.recipe else ORIGINS["given"]


def _chosen_on(contestant: Contestant) -> str | None:
    """The hash of the validation data by whose scores a run's best weights were chosen; None for other weights."""
    if contestant.recipe is None or Path(str(contestant.weights)).name != "best.safetensors":
        return None
    block = load_options(contestant.recipe, contestant.overrides).datasets.val
    return None if block is None else data_hash(DATASETS.build(block.arguments()))


def _train(entries: Sequence[Entry], settings: Settings, backend: Backend, log: Callable[[str], object]) -> None:
    trained = [entry for entry in entries if entry.contestant.weights is None]
    options = {entry.label: load_options(str(entry.contestant.recipe), entry.contestant.overrides)
               for entry in trained}
    seconds = {}
    if settings.budget is not None and settings.budget.kind == "seconds":
        # Measured once: other seconds at the next call would be another recipe.
        measured = {entry.label: _steps_job(entry, options[entry.label], settings) for entry in trained}
        run_jobs(list(measured.values()), backend, log=log)
        seconds = {label: job.result()["seconds"] for label, job in measured.items()}
    jobs = []
    for entry in trained:
        own = options[entry.label]
        recipe = own.as_dict() if settings.budget is None else shortened(own, iterations_of(
            own, settings.budget, device=settings.devices[0], seconds=seconds.get(entry.label)))
        for seed in settings.seeds:
            jobs.append((entry, seed, _training_job(entry, settings, seed, recipe, own)))
    run_jobs([job for _, _, job in jobs], backend, log=log)
    for entry, seed, job in jobs:
        result = job.result()
        entry.runs[seed] = {**result, "weights": str(job.folder / result["weights"])}


def _steps_job(entry: Entry, options: Options, settings: Settings) -> Job:
    """The measurement of a recipe's training iterations, where they will run."""
    folder = settings.out / "runs" / f"{entry.file}_seconds"
    path = folder / "recipe.yml"
    _write_recipe(path, options.as_dict())
    return Job("steps", f"time {entry.label}", {"options": options.hash(), "device": settings.devices[0]},
               {"recipe": str(path), "device": _device(settings)}, folder, folder / "measured.json", _needs(settings))


def _write_recipe(path: Path, recipe: dict) -> None:
    text = yaml.safe_dump(json.loads(json.dumps(recipe)), sort_keys=False)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        with atomic_write(path, "w", encoding="utf-8") as file:
            file.write(text)


def _training_job(entry: Entry, settings: Settings, seed: int, recipe: dict, options: Options) -> Job:
    folder = settings.out / "runs" / f"{entry.file}_seed{seed}"
    recipe = {**recipe, "name": "run", "manual_seed": seed,
              "path": {**recipe["path"], "experiments_root": str(folder)},
              "logger": {**recipe["logger"], "use_tb_logger": False}}
    path = folder / "recipe.yml"
    job = Job("train", f"train {entry.label}, seed {seed}",
              _training_identity(recipe, options, bool(_gpus(settings))),
              {"recipe": str(path), "device": _device(settings)}, folder, folder / "trained.json", _needs(settings),
              (folder / "run" / "metrics.csv", recipe["train"]["total_iter"]))
    if folder.is_dir() and job.stored_key() not in (None, job.key):
        _put_aside(folder)
    _write_recipe(path, recipe)
    return job


def _training_identity(recipe: dict, options: Options, on_gpu: bool) -> dict:
    """What decides the weights that a training ends with: recipe, data, first weights, code; no paths."""
    plainly = json.loads(json.dumps(recipe))
    plainly["path"].pop("experiments_root")
    blocks = [stage.dataset.arguments() for stage in plan_stages(options)]
    blocks += [options.datasets.val.arguments()] if options.datasets.val is not None else []
    data = []
    for block in blocks:
        dataset = DATASETS.build(block)
        data.append([data_hash(dataset), describe_data(dataset), foreign_code([dataset])])
    for block in plainly["datasets"].values():
        (block or {}).pop("store", None)
    first = options.path.pretrain_network_g
    return {"recipe": text_hash(plainly), "data": data, "on_gpu": on_gpu, "code": code_hash(options.custom_imports),
            "first_weights": file_hash(first) if first and os.path.isfile(first) else str(first),
            "package": versions()["k3dn_plugin"]}


def _put_aside(folder: Path) -> None:
    """Rename the folder of a training of other content; nothing is deleted."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.older{number}")).exists():
        number += 1
    with alone(folder):  # an orphan that still saves there would save into the new folder of this name
        folder.rename(aside)


def _score(entries: Sequence[Entry], settings: Settings, protocol: EvaluationProtocol, dataset: Dataset,
           backend: Backend, log: Callable[[str], object]) -> dict[str, dict]:
    """Score all weights; return what each file of them holds (`_content_of`), for which it has been read."""
    scenes = chosen_scenes(dataset, settings.scenes)
    common = {"data": data_hash(dataset), "described": describe_data(dataset), "protocol": protocol.facts(),
              "metrics": list(settings.metrics), "diagnostics": list(settings.diagnostics), "scenes": scenes,
              "max_memory_gb": settings.max_memory_gb, "on_gpu": bool(_gpus(settings)),
              "code": foreign_code([dataset, protocol, *protocol.scorers.values()]),
              "package": versions()["k3dn_plugin"]}
    jobs, contents = [], {}
    for entry in entries:
        weights = ({None: str(entry.contestant.weights)} if entry.contestant.weights is not None
                   else {seed: run["weights"] for seed, run in entry.runs.items()})
        for seed, path in weights.items():
            name = entry.file + (f"_seed{seed}" if seed is not None else "")
            folder = settings.out / "scores" / name
            folder.mkdir(parents=True, exist_ok=True)
            recipe = settings.out / "runs" / name / "recipe.yml"
            recipe = str(recipe) if recipe.is_file() else str(entry.contestant.recipe or "")
            imports = load_options(recipe).custom_imports if recipe else ()
            if path not in contents:
                contents[path] = _content_of(path)
            identity = {**common, **contents[path], "imports": code_hash(imports)}
            spec = {"weights": path, "data": str(settings.data), "protocol": protocol.name,
                    "metrics": list(settings.metrics), "diagnostics": list(settings.diagnostics), "scenes": scenes,
                    "folder": str(folder), "recipe": recipe, "device": _device(settings),
                    "max_memory_gb": settings.max_memory_gb}
            title = f"score {entry.label}" + (f", seed {seed}" if seed is not None else "")
            jobs.append((entry, seed, Job("score", title, identity, spec, folder, folder / "scored.json",
                                          _needs(settings), (folder / "per_image.csv", len(cast("Sized", dataset))))))
    run_jobs([job for _, _, job in jobs], backend, log=log)
    for entry, seed, job in jobs:
        entry.scores[seed], entry.folders[seed] = job.result(), job.folder
    return contents


def _content_of(weights: str) -> dict:
    """What a restorer computes with: weights, settings, maps that it reads from files, code of others."""
    loaded = load_restorer(weights, device="cpu")
    maps = loaded.restorer.maps_hash() if getattr(loaded.restorer, "maps", ()) else ""
    return {"weights": loaded.weights_hash, "settings": settings_hash(loaded.restorer, loaded.settings), "maps": maps,
            "restorer_code": foreign_code([loaded.restorer])}


def _gpus(settings: Settings) -> int:
    return 0 if settings.devices[0] == "cpu" else 1


def _device(settings: Settings) -> str:
    return "cuda" if _gpus(settings) else "cpu"


def _needs(settings: Settings) -> Needs:
    gpus = _gpus(settings)
    return Needs(cpus=settings.cpus or 1, gpus=gpus, memory_gb=None if gpus else settings.max_memory_gb)


def _measure(entries: Sequence[Entry], settings: Settings, contents: Mapping[str, dict], backend: Backend,
             log: Callable[[str], object]) -> None:
    """Measure all restorers in turns, in one job: on one machine, which does nothing else for us then."""
    folder = settings.out / "cost"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {entry.label: str(entry.contestant.weights or next(iter(entry.runs.values()))["weights"])
               for entry in entries}
    recipes = [str(entry.contestant.recipe) for entry in entries if entry.contestant.recipe]
    sizes = {"size": list(settings.size), "latency_size": list(settings.latency_size), "device": _device(settings)}
    identity = {**sizes, "content": {label: contents[path] for label, path in weights.items()},
                "package": versions()["k3dn_plugin"]}
    job = Job("measure", "measure cost", identity, {**sizes, "weights": weights, "recipes": recipes}, folder,
              folder / "measured.json", _needs(settings))
    run_jobs([job], backend, log=log)
    costs = job.result()["costs"]
    for entry in entries:
        entry.cost = costs[entry.label]
