"""report.html: everything of a comparison in one file that any browser opens without a network."""
import base64
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from k3dn_plugin.analysis.pictures import internal_pictures
from k3dn_plugin.comparison.collect import Comparison, Entry
from k3dn_plugin.comparison.figures import write_figures
from k3dn_plugin.comparison.pictures import details, error_map
from k3dn_plugin.comparison.tables import Column, difference_rows, facts, table_rows, write_tables
from k3dn_plugin.data.images import encode_image
from k3dn_plugin.evaluation.run import scored_dataset
from k3dn_plugin.files import atomic_write
from k3dn_plugin.zoo.baseline import DO_NOTHING
from k3dn_plugin.zoo.load import load_restorer

TEMPLATE = "report.html.j2"


def write_report(comparison: Comparison) -> Path:
    """Write the tables, the figures and report.html; returns the latter's path."""
    folder = Path(comparison.settings.out)
    write_tables(comparison, folder)
    figures = write_figures(comparison, folder)
    # Every value is escaped where it stands; the figures alone are HTML already.
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True)
    environment.filters["number"] = _number
    text = environment.get_template(TEMPLATE).render(
        title=f"Comparison on {comparison.data['name']} by {comparison.protocol['name']}", facts=facts(comparison),
        reference=comparison.reference, largest=_largest(comparison), main=table_rows(comparison),
        differences=difference_rows(comparison), figures=list(figures.values()), scenes=_scenes(comparison),
        internals=_internals(comparison), provenance=_provenance(comparison))
    path = folder / "report.html"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _number(text: str) -> str:
    """The number that a cell begins with, by which it is sorted; empty where it begins with none."""
    found = re.match(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", str(text))
    return found[0].replace(",", "") if found else ""


def _largest(comparison: Comparison) -> str:
    lines = []
    for entry in comparison.ranked():
        difference = comparison.difference(entry.label, comparison.first)
        if difference is not None and not difference.identical:
            lines.append(f"{entry.label} and {comparison.reference} differ most on {', '.join(difference.largest)}.")
    return " ".join(lines)


def _scenes(comparison: Comparison) -> list[dict]:
    """The chosen scenes with a detail for every contestant, as data URLs; of several trainings the first is shown."""
    shown = [(entry, *next(iter(entry.folders.items()))) for entry in comparison.entries]
    first = shown[0][2] / "scenes"
    indices = sorted(int(p.name) for p in first.iterdir() if p.name.isdecimal()) if first.is_dir() else []
    names = list(dict.fromkeys(row["name"] for row in comparison.rows))
    scenes = []
    for index in indices[:comparison.settings.scenes]:
        found, name = details([folder / "scenes" for _, _, folder in shown], index), names[index]
        images = [{"label": entry.label if seed is None else f"{entry.label}, seed {seed}", "image": _url(image),
                   "error": _url(error_map(image, found.truth)), "score": _score(comparison, entry, seed, name)}
                  for (entry, seed, _), image in zip(shown, found.restored, strict=True)]
        images.append({"label": "(truth)", "image": _url(found.truth), "score": None,
                       "error": _url(error_map(found.truth, found.truth))})
        scenes.append({"name": name, "input": _url(found.blurred), "images": images})
    return scenes


def _score(comparison: Comparison, entry: Entry, seed: int | None, name: str) -> str | None:
    """The score of the very picture that is shown."""
    value = next((row.get(comparison.first) for row in comparison.rows if row["label"] == entry.label
                  and row["seed"] == ("" if seed is None else seed) and row["name"] == name), None)
    return None if value is None else f"{comparison.first} {value:.3f} (whole frame)"


def _url(image) -> str:  # noqa: ANN001 - bytes of a PNG file, or an array
    data = image if isinstance(image, bytes) else encode_image(image, ".png")
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _internals(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """By contestant, titles and pictures of what its modules do, where it has such modules."""
    sample, parts = scored_dataset(None, comparison.settings.data)[0], []
    for entry in comparison.entries:
        seed, run = next(iter(entry.runs.items()), (None, {}))
        weights = entry.contestant.weights or run["weights"]
        if str(weights) != DO_NOTHING:
            pictures = internal_pictures(load_restorer(weights, device="cpu").restorer, sample)
            label = entry.label if seed is None else f"{entry.label}, seed {seed}"
            if pictures:
                parts.append((label, [(title, _url(data)) for title, data in pictures.items()]))
    return parts


def _provenance(comparison: Comparison) -> tuple[list[Column], list[dict[str, str]]]:
    rows = []
    for entry in comparison.entries:
        for seed, summary in entry.scores.items():
            place = summary["provenance"]
            weights = place.get("weights") or {}
            rows.append({"restorer": entry.label, "origin": entry.origin, "seed": "" if seed is None else str(seed),
                         "weights": Path(str(weights.get("file", ""))).name, "weights hash": place["weights_hash"],
                         "settings hash": place["settings_hash"], "data hash": place["data_hash"],
                         "options": str(weights.get("options_hash", "")), "protocol": summary["protocol"]["name"],
                         "device": place["device"], "tiles": "some" if summary["tiled_images"] else "none"})
    return [Column(name) for name in rows[0]], rows
