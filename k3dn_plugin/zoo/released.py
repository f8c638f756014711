"""The weights that come with the package: which there are, which one is taken where none is named, what they say.

A released file is any `NAME.safetensors` in the folder `released/`, with its card beside it: `NAME.json` for programs,
`NAME.md` for people. Adding weights is adding files (`release.py` writes them).
"""
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.files import read_file
from k3dn_plugin.zoo import sources
from k3dn_plugin.zoo.content import is_json_object
from k3dn_plugin.zoo.sources import TRAINED, released_names

DEFAULT = "k3dn_s_real"
TRAINING = ("`k3dn photographs --source DIR` (datasets/photographs/README.md says what DIR holds), then "
            f"`k3dn train -opt {DEFAULT}`")


@dataclass(frozen=True)
class ReleasedWeights:
    """Weights that come with the package.

    Attributes:
        name: by which they are loaded.
        path: of the safetensors file.
        card: what `NAME.json` says (see `release.py`); empty where there is none.
    """

    name: str
    path: Path
    card: Mapping[str, Any] = field(default_factory=dict[str, Any])


def released_weights(folder: str | os.PathLike[str] | None = None) -> list[ReleasedWeights]:
    """Return what is released, by name; an empty list where nothing is.

    Args:
        folder: None for the package's own.

    Raises:
        CheckpointError: a card is damaged.
    """
    folder = Path(sources.RELEASED if folder is None else folder)
    return [ReleasedWeights(path.stem, path, _card(path.with_suffix(".json")))
            for path in sorted(folder.glob("*.safetensors"))]


def default_weights() -> str:
    """Return the name of the weights that are taken where none are named.

    Raises:
        OptionError: none is released, or several of which none is the usual one.
    """
    names = released_names()
    if DEFAULT in names:
        return DEFAULT
    if len(names) == 1:
        return names[0]
    if names:
        raise OptionError(f"which weights? Give --weights NAME, one of {', '.join(names)}, or a file")
    raise OptionError(f"which weights? None come with this version, so give --weights FILE. `make demo` makes some in "
                      f"minutes. Those for real photographs: {TRAINING}. {TRAINED}")


def released_page(found: list[ReleasedWeights]) -> str:
    """Return what is released as a Markdown table, or a line that says that nothing is."""
    if not found:
        return (f"No weights come with this version. To train some: {TRAINING}. `k3dn release FILE --name {DEFAULT}` "
                "puts them into the package.")
    lines = ["| weights | network | parameters (M) | file (MB) | gains over the blurred input | license |",
             "|---|---|---|---|---|---|"]
    for one in found:
        card = one.card
        parameters = card.get("parameters")
        lines.append("| " + " | ".join((
            f"`{one.name}`", str(card.get("restorer", "-")), f"{parameters / 1e6:.2f}" if parameters else "-",
            f"{one.path.stat().st_size / 1e6:.1f}",
            "; ".join(gain_in_words(score) for score in card.get("scores", ())) or "not scored yet",
            str(card.get("license", "-")))) + " |")
    return "\n".join([*lines, "", f"`k3dn restore` takes `{DEFAULT}` where no weights are named."
                      if any(one.name == DEFAULT for one in found) else ""]).rstrip()


def gain_in_words(score: Mapping[str, Any]) -> str:
    """Return the first metric of a stored score in words: `+1.41 dB psnr on wall (24 images, dpdd16)`."""
    means = score["means"]
    metric = next(name for name in means if not name.startswith("input_"))
    before, after = means.get(f"input_{metric}"), means[metric]
    unit = " dB" if metric.startswith("psnr") else ""
    gain = f"{after - before:+.2f}{unit} {metric}" if before is not None else f"{after:.4g}{unit} {metric}"
    return f"{gain} on {score['data']} ({score['images']} images, {score['protocol']})"


def _card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        card = json.loads(read_file(path, error=CheckpointError))
        if not is_json_object(card):
            raise ValueError("expected an object")
        _check(card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError,
            OverflowError) as error:
        raise CheckpointError(f"{path}: the card of released weights cannot be read ({type(error).__name__}: {error}); "
                              "install the package again, or write it anew with `k3dn release`") from None
    return card


def _check(card: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a value of a card is not what its readers take it for, by what they read of it."""
    parameters = card.get("parameters", 0)
    if not _is_number(parameters) or not all(isinstance(card.get(key, ""), str) for key in ("restorer", "license")):
        raise ValueError("expected a number as `parameters`, texts as `restorer` and `license`")
    for score in card.get("scores", ()):
        check_score(score)


def check_score(score: Mapping[str, Any]) -> None:
    """Raise `ValueError`, `KeyError`, `TypeError`, ... unless a stored score is what its readers take it for."""
    images, texts = score["images"], (score["data"], score["protocol"])
    if not isinstance(images, int) or not all(isinstance(text, str) for text in texts):
        raise ValueError("scores: expected a whole number as `images`, texts as `data` and `protocol`")
    if not all(value is None or _is_number(value) for value in score["means"].values()):
        raise ValueError("scores: expected finite numbers as `means`")
    gain_in_words(score)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
