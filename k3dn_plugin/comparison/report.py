"""report.html: everything of a comparison in one file that any browser opens without a network."""
import base64
import html
import json
from pathlib import Path
from string import Template

from k3dn_plugin.analysis.pictures import internal_pictures
from k3dn_plugin.comparison.collect import Comparison
from k3dn_plugin.comparison.figures import write_figures
from k3dn_plugin.comparison.pictures import details, error_map
from k3dn_plugin.comparison.tables import facts, table_rows, write_tables
from k3dn_plugin.data.images import encode_image
from k3dn_plugin.files import atomic_write

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(comparison: Comparison) -> Path:
    """Write results.csv, table.md, table.tex, table.csv, the figures and report.html; the latter's path."""
    folder = Path(comparison.settings.out)
    write_tables(comparison, folder)
    figures = write_figures(comparison, folder)
    rows, scenes = table_rows(comparison), _scenes(comparison)
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"Comparison on {comparison.data['name']} by {comparison.protocol['name']}"),
        facts="<br>".join(html.escape(line) for line in facts(comparison)),
        differences=html.escape(_differences(comparison)),
        table=_table(rows), figures="".join(f"<div>{svg}</div>" for svg in figures.values()),
        scene_options="".join(f'<option value="{i}">{html.escape(scene["name"])}</option>'
                              for i, scene in enumerate(scenes)),
        internals=_internals(comparison), provenance=_table(_provenance(comparison)),
        # A closing tag inside the data would end the script element.
        data=json.dumps({"scenes": scenes}).replace("</", "<\\/"))
    path = folder / "report.html"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _differences(comparison):
    lines = []
    for entry in comparison.ranked():
        difference = comparison.difference(entry.label, comparison.first)
        if difference is not None:
            lines.append(f"{entry.label} and {comparison.reference} differ most on {', '.join(difference.largest)}.")
    return " ".join(lines)


def _table(rows):
    fields = list(rows[0])
    head = "".join(f"<th>{html.escape(field)}</th>" for field in fields)
    body = "".join("<tr>" + "".join(_cell(str(row[field])) for field in fields) + "</tr>" for row in rows)
    return f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(text):
    plain = text.replace(",", "")
    value = f' data-value="{html.escape(plain)}"' if plain != text else ""
    return f"<td{value}>{html.escape(text)}</td>"


def _scenes(comparison):
    """The chosen scenes with a detail for every contestant, as data URLs."""
    folders = {entry.label: next(iter(entry.folders.values())) / "scenes" for entry in comparison.entries}
    indices = sorted(int(p.name) for p in next(iter(folders.values())).iterdir()) \
        if next(iter(folders.values())).is_dir() else []
    names = list(dict.fromkeys(row["name"] for row in comparison.rows))
    scenes = []
    for index in indices:
        images = details(folders, index)
        truth, name = images.pop("truth"), names[index]
        blurred = images.pop("input")
        shown = [{"label": label, "image": _url(image), "error": _url(error_map(image, truth)),
                  "score": _score(comparison, label, name)} for label, image in images.items()]
        shown.append({"label": "truth", "image": _url(truth), "error": _url(error_map(truth, truth)), "score": None})
        scenes.append({"name": name, "input": _url(blurred), "images": shown})
    return scenes


def _score(comparison, label, name):
    value = comparison.scores(label, comparison.first).get(name)
    return None if value is None else f"{comparison.first} {value:.3f} (whole frame)"


def _url(image):
    return "data:image/png;base64," + base64.b64encode(encode_image(image, ".png")).decode("ascii")


def _internals(comparison):
    parts = []
    for entry in comparison.entries:
        pictures = internal_pictures(entry, comparison)
        if pictures:
            parts.append(f"<h3>{html.escape(entry.label)}</h3>" + "".join(
                f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,'
                f'{base64.b64encode(data).decode("ascii")}"><figcaption>{html.escape(title)}</figcaption></figure>'
                for title, data in pictures.items()))
    return f'<h2>Inside the networks</h2><div class="internals">{"".join(parts)}</div>' if parts else ""


def _provenance(comparison):
    rows = []
    for entry in comparison.entries:
        for seed, summary in entry.scores.items():
            place = summary["provenance"]
            weights = place.get("weights") or {}
            rows.append({"restorer": entry.label, "origin": entry.origin, "seed": "" if seed is None else seed,
                         "weights": Path(str(weights.get("file", ""))).name,
                         "weights hash": place["weights_hash"], "data hash": place["data_hash"],
                         "options": str(weights.get("options_hash", "")), "protocol": summary["protocol"]["name"],
                         "device": place["device"], "tiles": "some" if summary["tiled_images"] else "none"})
    return rows
