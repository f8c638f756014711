"""Makes weights ready to come with the package: rounded to 16 bits, checked against float32, described by a card."""
import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from k3dn_plugin import __version__
from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import CheckpointError, DataError, OptionError
from k3dn_plugin.files import atomic_write, read_file
from k3dn_plugin.inference.frames import FrameRestorer
from k3dn_plugin.inference.settings import HALF, InferenceSettings
from k3dn_plugin.simulation.dataset import SimulatedDualPixelDataset
from k3dn_plugin.zoo import sources
from k3dn_plugin.zoo.baseline import DO_NOTHING
from k3dn_plugin.zoo.content import is_json_object, state_hash, weights_hash
from k3dn_plugin.zoo.pretrained import front_matter
from k3dn_plugin.zoo.released import ReleasedWeights, check_score
from k3dn_plugin.zoo.weights import WeightsFile, read_weights, save_weights

MOST_BYTES = 8_000_000     # of a file in the package
LEAST_DB = 50.0            # between the outputs of the rounded and of the original weights
CHECKED_ON = 4             # simulated pairs
NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Rounding:
    """What rounding did to the outputs.

    Attributes:
        dtype: "float16" or "bfloat16".
        weights_hash: of the weights before.
        least_db: smallest PSNR between the two outputs over the pairs, full scale being 1; at most 200.
        pairs: how many were restored.
    """

    dtype: str
    weights_hash: str
    least_db: float
    pairs: int


def release(source: str | os.PathLike[str], name: str, *, scores: Iterable[str | os.PathLike[str]] = (),
            limits: str = "", seeds: str = "", dtype: str = "float16",
            folder: str | os.PathLike[str] | None = None) -> ReleasedWeights:
    """Write `NAME.safetensors` and its card, `NAME.json` and `NAME.md`.

    Args:
        source: weights as `load_restorer` takes them; released ones for a new card.
        scores: `summary.json` files of `k3dn test` or `k3dn compare`, of these weights before or after rounding.
        limits: where the weights fail, in words.
        seeds: of the training, where the weights file does not say.
        dtype: "float16" or "bfloat16".
        folder: where to write; None for the package's own folder.

    Raises:
        OptionError: the name or the dtype is none, or rounding to it changes the outputs too much.
        CheckpointError: the weights cannot be read, or take more than 8 MB.
        DataError: a file of scores is damaged, or of other weights.
        StorageError: the folder cannot be written.
    """
    if not NAME.fullmatch(name):
        raise OptionError(f"--name {name}: expected small letters, digits and underscores, such as k3dn_s_real")
    if name == DO_NOTHING:
        raise OptionError(f"--name {name}: this name stands for the blurred center view as it is; choose another, such "
                          "as k3dn_s_real")
    if dtype not in HALF:
        raise OptionError(f"--dtype {dtype}: expected {' or '.join(HALF)}")
    folder = Path(sources.RELEASED if folder is None else folder)
    file = read_weights(source)
    original = file.build()
    state = rounded_state(file.state, getattr(torch, dtype))
    released = WeightsFile(file.path, state, file.network_g, without_paths(file.provenance)).build()
    rounding = _rounding_of(file, original, released, dtype)
    hashes = [weights_hash(released), rounding.weights_hash]
    provenance = {**without_paths(file.provenance), "rounding": asdict(rounding)}
    card = {"name": name, "restorer": type(original).__name__, "title": original.card.title,
            "paper": f"{original.card.paper}, {original.card.venue} {original.card.year}",
            "license": LICENSE, "version": __version__, "weights_hash": hashes[0],
            "parameters": sum(parameter.numel() for parameter in original.parameters()),
            "views": list(original.card.views), "network_g": file.network_g, "provenance": provenance,
            "seeds": seeds or str(file.provenance.get("seed", "not recorded")), "limits": limits,
            "scores": [_score(path, hashes) for path in scores]}
    path = folder / f"{name}.safetensors"
    _write(path, state, card)
    return ReleasedWeights(name, path, card)


def rounded_state(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return a state dict with its floating-point tensors in a 16-bit type, to the nearest number.

    Raises:
        OptionError: a weight is too large for the type.
    """
    rounded = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    wrong = [key for key, value in rounded.items() if value.is_floating_point()
             and not bool(value.isfinite().all()) and bool(state[key].isfinite().all())]
    if wrong:
        raise OptionError(f"{wrong[0]} holds numbers that {dtype} cannot; use --dtype bfloat16")
    return rounded


def compare_outputs(one: Restorer, other: Restorer, pairs: int) -> float:
    """Restore simulated pairs with both restorers; return the smallest PSNR between their outputs, at most 200 dB."""
    data = SimulatedDualPixelDataset(fixed=True, length=pairs, crop_size=192, max_radius=8.0, procedural_share=0.5,
                                     seed=11)
    runs = [FrameRestorer(restorer, InferenceSettings(device="cpu")) for restorer in (one, other)]
    worst = 0.0
    for sample in (data[index] for index in range(pairs)):
        images = [run(sample["lq"][None], sample["center"][None], run.maps_of(sample)).image for run in runs]
        worst = max(worst, float(((images[0] - images[1]).double() ** 2).mean()))
    return -10 * math.log10(max(worst, 1e-20))


def without_paths(value: Any) -> Any:
    """Return JSON data in which paths of the machine are their last part alone."""
    if isinstance(value, Mapping):
        return {key: without_paths(one) for key, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(one) for one in cast("Sequence[Any]", value)]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _rounding_of(file: WeightsFile, original: Restorer, released: Restorer, dtype: str) -> Rounding:
    stored = file.provenance.get("rounding")
    if is_json_object(stored) and all(torch.equal(value, released.state_dict()[key].to(value.dtype))
                                      for key, value in file.state.items()):
        # Released before: what rounding did is known, and cannot be measured again.
        return _stored_rounding(file, stored)
    rounding = Rounding(dtype, weights_hash(original), round(compare_outputs(original, released, CHECKED_ON), 2),
                        CHECKED_ON)
    if rounding.least_db < LEAST_DB:
        other = next(name for name in HALF if name != dtype)
        raise OptionError(f"rounded to {dtype}, the weights give outputs {rounding.least_db:.1f} dB from those in "
                          f"float32; at least {LEAST_DB:g} dB are asked for. Try --dtype {other}")
    return rounding


def _stored_rounding(file: WeightsFile, stored: Mapping[str, Any]) -> Rounding:
    types = {"dtype": str, "weights_hash": str, "least_db": (int, float), "pairs": int}
    if set(stored) != set(types) or not all(isinstance(stored[key], kind) for key, kind in types.items()):
        raise CheckpointError(f"{file.path}: `rounding` in its header is not what `k3dn release` writes "
                              f"({', '.join(types)}); take the weights before rounding")
    return Rounding(**stored)


def _score(path: str | os.PathLike[str], hashes: list[str]) -> dict[str, Any]:
    """Return what a card says of a `summary.json`, or of one in a folder."""
    path = Path(path) / "summary.json" if Path(path).is_dir() else Path(path)
    try:
        summary = json.loads(read_file(path))
        origin = summary["provenance"]
        found = {"data": origin["data"]["name"], "data_hash": origin["data_hash"], "images": summary["images"],
                 "protocol": summary["protocol"]["name"], "means": summary["means"],
                 "weights_hash": origin["weights_hash"]}
        check_score(found)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError, OverflowError) as error:
        raise DataError(f"{path}: expected a summary.json of `k3dn test` ({type(error).__name__}: {error})") from None
    if found["weights_hash"] not in hashes:
        raise DataError(f"{path} scores other weights (hash {found['weights_hash']}) than these ({hashes[0]} rounded, "
                        f"{hashes[1]} before). Score these: k3dn test --weights FILE --data STORE")
    found["of"] = "the released file" if found["weights_hash"] == hashes[0] else "the weights before rounding"
    return found


def _write(path: Path, state: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Write the three files; weights that are there already stay as they are, to the last byte."""
    if not path.is_file() or not _holds(path, state, card):
        # First under another name, because their size is known only then.
        trial = path.with_name(f".{path.name}.trial")
        try:
            save_weights(trial, state, network_g=card["network_g"], provenance=card["provenance"])
            size = trial.stat().st_size
            if size > MOST_BYTES:
                raise CheckpointError(f"{card['name']} takes {size / 1e6:.1f} MB; weights in the package may have "
                                      f"{MOST_BYTES / 1e6:g}. Release a smaller network")
            with atomic_write(path) as file:
                file.write(trial.read_bytes())
        finally:
            with contextlib.suppress(OSError):   # what stopped the writing is the error to tell
                trial.unlink()
    with atomic_write(path.with_suffix(".json"), "w", encoding="utf-8") as file:
        json.dump(card, file, indent=2)
        file.write("\n")
    with atomic_write(path.with_suffix(".md"), "w", encoding="utf-8") as file:
        file.write(released_card(card))


def _holds(path: Path, state: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> bool:
    try:
        file = read_weights(path)
    except CheckpointError:   # damaged, so it is written anew
        return False
    return (file.network_g == card["network_g"] and file.provenance == card["provenance"]
            and state_hash(file.state) == state_hash(state))


def missing_in(card: Mapping[str, Any]) -> list[str]:
    """Return which of the parts that cards in the package must have this one lacks: "scores", "limits"."""
    return [part for part in ("scores", "limits") if not card[part]]


def earlier_stage(card: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the weights' stage and the last one of their recipe, where they are known and are two."""
    stage, stages = (card["provenance"].get(key) for key in ("stage", "stages"))
    if not stage or not isinstance(stages, list) or not stages or stages[-1] == stage:
        return None
    return str(stage), str(cast("list[object]", stages)[-1])


def released_card(card: Mapping[str, Any]) -> str:
    """Return the Markdown of a card."""
    provenance, rounding = card["provenance"], card["provenance"]["rounding"]
    data = provenance.get("data")
    data = data.get("name", data) if is_json_object(data) else data
    facts = {
        "network": f"{card['restorer']}: {card['title']} ({card['paper']}), {card['parameters']:,} parameters",
        "weights hash": f"`{card['weights_hash']}`",
        "recipe": f"`{Path(str(provenance.get('recipe') or provenance.get('run') or 'not recorded')).stem}` "
                  f"(options {provenance.get('options_hash', 'not recorded')}), stage "
                  f"{provenance.get('stage', 'not recorded')}, iteration "
                  f"{provenance.get('iteration', 'not recorded')}, {provenance.get('samples_seen', '?')} samples",
        "data": f"{data or 'not recorded'} (hash {provenance.get('data_hash', 'not recorded')})",
        "seeds": card["seeds"],
        "stored as": f"{rounding['dtype']}; outputs agree with those of float32 to {rounding['least_db']:g} dB or "
                     f"better on {rounding['pairs']} simulated pairs",
        "license": card["license"]}
    lines = [*front_matter(card["license"]), "", f"# {card['name']}", "",
             "Written by `k3dn release`.", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items()), "",
             "## Scores", ""]
    if card["scores"]:
        lines += ["| data | images | protocol | metric | blurred input | restored |", "|---|---|---|---|---|---|"]
    for score in card["scores"]:
        for metric in (name for name in score["means"] if not name.startswith("input_")):
            before, after = (score["means"].get(name) for name in (f"input_{metric}", metric))
            lines.append(f"| {score['data']} | {score['images']} | {score['protocol']} | {metric} | "
                         + " | ".join("-" if value is None else f"{value:.4f}" for value in (before, after)) + " |")
    lines += ["", "Scores are of " + " and of ".join(sorted({score["of"] for score in card["scores"]})) + "."] \
        if card["scores"] else ["Not scored yet."]
    lines += ["", "## Where it fails", "", card["limits"] or "Not described yet.", "", "## Use", "", "```python",
              "import k3dn_plugin as k3dn", f'restorer = k3dn.load_restorer("{card["name"]}")',
              "sharp = restorer.restore(left, right)   # NumPy (H, W, 3)", "```", ""]
    return "\n".join(lines)
