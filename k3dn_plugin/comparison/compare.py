"""The comparison itself: train where asked, score, measure, and write the report's folder."""
import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from k3dn_plugin.comparison.budget import Budget, iterations_of, shortened
from k3dn_plugin.comparison.collect import Comparison
from k3dn_plugin.comparison.contestants import ORIGINS, Contestant, file_name
from k3dn_plugin.comparison.measure import measure_restorers
from k3dn_plugin.comparison.pictures import chosen_scenes
from k3dn_plugin.comparison.report import write_report
from k3dn_plugin.comparison.runner import Piece, run_pieces
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.cost import FULL_FRAME
from k3dn_plugin.evaluation.run import scored_dataset, usual_protocol
from k3dn_plugin.files import atomic_write
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.zoo.baseline import DO_NOTHING
from k3dn_plugin.zoo.load import load_restorer
from k3dn_plugin.zoo.weights import read_weights


@dataclass(frozen=True)
class Settings:
    """What holds for all contestants.

    Attributes:
        out: the folder of the comparison.
        data: the store that is scored on.
        protocol: its name; None takes the data's usual one.
        budget: of training; None trains each recipe for its own length.
        seeds: one training run each.
        jobs, devices: processes at a time, and what they run on.
        reference: label of the contestant that the others are compared with; None takes the first.
        size: (rows, columns) at which MACs are counted. latency_size: at which restorers are timed.
        scenes: how many scenes are shown.
        metrics, diagnostics: beside those of the protocol.
        published: overlay quoted figures.
    """

    out: Path
    data: str
    protocol: str | None = None
    budget: Budget | None = None
    seeds: tuple[int, ...] = (1,)
    jobs: int = 1
    devices: tuple[str, ...] = ("cpu",)
    reference: str | None = None
    size: tuple[int, int] = FULL_FRAME
    latency_size: tuple[int, int] = (256, 256)
    scenes: int = 3
    max_memory_gb: float | None = None
    metrics: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    published: bool = False


@dataclass
class Entry:
    """A contestant and all that is known of it, by seed where it was trained here."""

    contestant: Contestant
    origin: str
    runs: dict = field(default_factory=dict)      # seed -> result of training
    scores: dict = field(default_factory=dict)    # seed -> result of scoring
    folders: dict = field(default_factory=dict)   # seed -> where its scores lie
    cost: dict = field(default_factory=dict)

    @property
    def label(self):
        return self.contestant.label


def compare(contestants, settings: Settings, *, say=print) -> Path:
    """Run the comparison and write its folder; returns the path of report.html.

    Interrupted at any moment, the same call goes on: training from its last state, scoring from its last image.

    Raises:
        OptionError: the folder holds another comparison, or the reference is not a contestant.
    """
    labels = [one.label for one in contestants]
    if settings.reference is not None and settings.reference not in labels:
        raise OptionError(f"--reference {settings.reference!r}: not one of {', '.join(labels)}")
    dataset = scored_dataset(None, settings.data)
    protocol = settings.protocol or usual_protocol(dataset)
    PROTOCOLS.build({"type": protocol, "extra_metrics": settings.metrics}).check(dataset.card)
    _keep_plan(contestants, settings, protocol, dataset)
    entries = [Entry(one, _origin(one)) for one in contestants]
    _train(entries, settings, say)
    _score(entries, settings, protocol, chosen_scenes(dataset, settings.scenes), say)
    say("measuring parameters, MACs, latency and memory")
    _measure(entries, settings)
    comparison = Comparison.of(entries, settings, protocol, dataset)
    return write_report(comparison)


def _keep_plan(contestants, settings, protocol, dataset):
    """Write plan.json, or refuse a folder that holds another plan."""
    plan = {"contestants": [{"label": c.label, "recipe": str(c.recipe or ""), "weights": str(c.weights or ""),
                             "overrides": list(c.overrides)} for c in contestants],
            "data": str(settings.data), "data_hash": dataset.card.hash, "protocol": protocol,
            "budget": settings.budget.words() if settings.budget else None, "seeds": list(settings.seeds),
            "metrics": list(settings.metrics), "diagnostics": list(settings.diagnostics)}
    path = settings.out / "plan.json"
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there != json.loads(json.dumps(plan)):
            changed = [key for key in plan if there.get(key) != json.loads(json.dumps(plan))[key]]
            raise OptionError(f"{settings.out} holds another comparison (different: {', '.join(changed)}). Give the "
                              "same command to go on with it, or another --out")
        return
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(plan, file, indent=2)


def _origin(contestant):
    if contestant.weights is None:
        return ORIGINS["trained"]
    if str(contestant.weights) == DO_NOTHING:
        return ORIGINS["nothing"]
    origin = read_weights(contestant.weights).provenance.get("origin")
    if origin == "official weights":
        return ORIGINS["official"]
    return ORIGINS["trained"] if contestant.recipe else ORIGINS["given"]


def _train(entries, settings, say):
    pieces = {}
    for entry in entries:
        if entry.contestant.weights is not None:
            continue
        for seed in settings.seeds:
            pieces[entry.label, seed] = _training_piece(entry.contestant, settings, seed)
    run_pieces(list(pieces.values()), jobs=settings.jobs, devices=settings.devices, say=say)
    for entry in entries:
        for seed in settings.seeds:
            if (entry.label, seed) in pieces:
                entry.runs[seed] = pieces[entry.label, seed].result()


def _training_piece(contestant, settings, seed):
    folder = settings.out / "runs" / f"{file_name(contestant.label)}_seed{seed}"
    options = load_options(contestant.recipe, contestant.overrides)
    recipe = shortened(options, iterations_of(options, settings.budget)) if settings.budget else options.as_dict()
    recipe["name"], recipe["manual_seed"] = "run", seed
    recipe["path"]["experiments_root"] = str(folder)
    recipe["logger"]["use_tb_logger"] = False
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yml"
    text = yaml.safe_dump(json.loads(json.dumps(recipe)), sort_keys=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic_write(path, "w", encoding="utf-8") as file:
            file.write(text)
    spec = {"work": "train", "recipe": str(path), "done": str(folder / "trained.json"),
            "device": "cpu" if settings.devices[0] == "cpu" else "cuda", "options_hash": load_options(path).hash()}
    return Piece(f"train {contestant.label}, seed {seed}", spec, folder)


def _score(entries, settings, protocol, scenes, say):
    pieces = []
    for entry in entries:
        weights = ({None: str(entry.contestant.weights)} if entry.contestant.weights is not None
                   else {seed: run["weights"] for seed, run in entry.runs.items()})
        for seed, path in weights.items():
            folder = settings.out / "scores" / (file_name(entry.label) + (f"_seed{seed}" if seed is not None else ""))
            folder.mkdir(parents=True, exist_ok=True)
            recipe = folder.parents[1] / "runs" / folder.name / "recipe.yml"
            spec = {"work": "score", "weights": path, "data": str(settings.data), "protocol": protocol,
                    "metrics": list(settings.metrics), "diagnostics": list(settings.diagnostics), "scenes": scenes,
                    "folder": str(folder), "done": str(folder / "scored.json"),
                    "recipe": str(recipe) if recipe.is_file() else str(entry.contestant.recipe or ""),
                    "device": "cpu" if settings.devices[0] == "cpu" else "cuda",
                    "max_memory_gb": settings.max_memory_gb}
            pieces.append((entry, seed, Piece(f"score {folder.name}", spec, folder)))
    run_pieces([piece for _, _, piece in pieces], jobs=settings.jobs, devices=settings.devices, say=say)
    for entry, seed, piece in pieces:
        entry.scores[seed], entry.folders[seed] = piece.result(), piece.folder


def _measure(entries, settings):
    restorers = {entry.label: _restorer(entry) for entry in entries}
    device = "cpu" if settings.devices[0] == "cpu" else "cuda"
    costs = measure_restorers(restorers, size=settings.size, latency_size=settings.latency_size, device=device)
    for entry in entries:
        entry.cost = costs[entry.label]


def _restorer(entry):
    weights = entry.contestant.weights or next(iter(entry.runs.values()))["weights"]
    return load_restorer(weights, device="cpu").restorer
