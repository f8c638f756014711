"""Write docs/results.md from comparisons that `k3dn compare` has made.

    python benchmarks/results_page.py --add simulated results/compare_simulated --title "Simulated scenes"
    python benchmarks/results_page.py

The first keeps a comparison's tables, figures and scenes as small files in `benchmarks/results/comparisons`, and both
write the page from all that are kept there, in the order of their names.
"""
import argparse
import json
import shutil
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.table import RESULTS, markdown, rows_of  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402
from k3dn_plugin.comparison.budget import KINDS  # noqa: E402
from k3dn_plugin.comparison.pictures import details  # noqa: E402
from k3dn_plugin.data.collage import beside, captioned, stacked  # noqa: E402
from k3dn_plugin.data.images import write_image  # noqa: E402
from k3dn_plugin.errors import DataError  # noqa: E402
from k3dn_plugin.files import atomic_write, file_names  # noqa: E402
from k3dn_plugin.zoo.baseline import DO_NOTHING  # noqa: E402
from k3dn_plugin.zoo.sources import is_released  # noqa: E402

PAGE = ROOT / "docs" / "results.md"
KEPT = RESULTS / "comparisons"
PICTURES = ROOT / "docs" / "assets" / "results"
FIGURES = {"differences.svg": "Differences with intervals", "learning_curves.svg": "Learning curves",
           "quality_macs.svg": "Quality against cost"}
SCENES = {"scenes.jpg": "Details of scenes"}
PANEL = 150      # pixels, the least that a detail's shorter side is shown with
# Of the table's columns, those that fit on a page; the others are in the kept table.csv.
SHOWN = ("restorer", "psnr", "ssim_uniform7", "gain over input", "psnr 95 %", "finding", "parameters", "MACs",
         "latency", "samples seen")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs=2, metavar=("NAME", "FOLDER"), help="keep a comparison under a name")
    parser.add_argument("--title", help="of its section")
    parser.add_argument("--note", default="", help="a paragraph below the title: how the data was made")
    parser.add_argument("--no-scenes", action="store_true", help="keep none of its pictures: data not to be copied")
    args = parser.parse_args(argv)
    if args.add:
        keep(args.add[0], Path(args.add[1]), args.title or args.add[0], note=args.note,
             with_scenes=not args.no_scenes)
    with atomic_write(PAGE, "w", encoding="utf-8") as file:
        file.write(page())
    print(f"written to {PAGE}")


def keep(name, folder, title, *, note="", kept=KEPT, pictures=PICTURES, with_scenes=True):
    """Copy what the page shows of a comparison: its table, what is said below it, its figures and scenes."""
    for wanted in ("plan.json", "table.csv", "table.md", "report.html"):
        if not (folder / wanted).is_file():
            raise DataError(f"{folder}: no {wanted}; expected the folder of a finished comparison (k3dn compare --out)")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    below = (folder / "table.md").read_text(encoding="utf-8").rpartition("|\n")[2].strip().splitlines()
    facts = [line for line in below if line and not line.startswith("report:")]
    target, shown = kept / name, pictures / name
    for one in (target, shown):
        one.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "table.csv", target / "table.csv")
    with atomic_write(target / "about.json", "w", encoding="utf-8") as file:
        json.dump({"title": title, "note": note, "command": command(plan), "facts": facts}, file, indent=1,
                  ensure_ascii=False)
    for figure in FIGURES:
        if (folder / figure).is_file():
            shutil.copyfile(folder / figure, shown / figure)
    # The center view is shown as what was put in.
    inputs = {one["label"] for one in plan["contestants"] if one["weights"] == DO_NOTHING}
    labels = [row["restorer"] for row in rows_of(target / "table.csv") if row["restorer"] not in inputs]
    sheet = scenes(folder, labels) if with_scenes else None
    if sheet is not None:
        write_image(shown / next(iter(SCENES)), sheet)


def command(plan):
    """The command that makes a comparison, without the folders of the machine it was made on."""
    entries = [entry(one["label"], one["recipe"] or one["weights"]) for one in plan["contestants"]]
    trained = any(one["recipe"] for one in plan["contestants"])
    words = ["k3dn compare", *entries, *(["--train", *budget(plan["budget"]), "--seeds", *map(str, plan["seeds"])]
                                         if trained else []),
             "--data", "/".join(Path(plan["data"]).parts[-2:]), "--protocol", plan["protocol"]]
    return " ".join(words)


def budget(words):
    """The arguments that ask for a budget, from the words in which the plan states it."""
    if not words:
        return []
    amount, _, kind = words.partition(" ")
    return ["--budget", f"{next(name for name, text in KINDS.items() if text == kind)}={amount.replace(',', '')}"]


def entry(label, source):
    """A contestant as one names it: `center` and released weights by name, files with their label."""
    path = Path(source)
    if source == DO_NOTHING or is_released(path):
        return path.stem
    # What a comparison has trained lies below its runs/, under a name that says more than that of the file.
    inside = path.parts.index("runs") if "runs" in path.parts else len(path.parts) - 1
    return f"{label}={'/'.join(path.parts[inside:])}"


def scenes(folder, labels):
    """A row a scene: the input, each contestant and the truth, where they differ most; None without scenes."""
    # Of several trainings the first is shown, as in the report; what is quoted from papers has no pictures.
    found = {label: next(iter([*(folder / "scores").glob(f"{name}/scenes"),
                               *sorted((folder / "scores").glob(f"{name}_seed*/scenes"))]), None)
             for label, name in file_names(labels).items()}
    places = {label: place for label, place in found.items() if place is not None}
    first = next(iter(places.values()), None)
    rows = []
    for index in sorted(int(one.name) for one in first.iterdir() if one.name.isdecimal()) if first else []:
        shown = details(list(places.values()), index)
        panels = [("blurred", shown.blurred), *zip(places, shown.restored, strict=True), ("truth", shown.truth)]
        rows.append(beside([captioned(enlarged(image), text) for text, image in panels]))
    return stacked(rows) if rows else None


def enlarged(image):
    """A detail made larger by a whole number, so that it can be seen, and its caption be read."""
    times = -(-PANEL // min(image.shape[:2]))
    return cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)


def page(kept=KEPT, pictures=PICTURES):
    """The page's text: a section a comparison."""
    lines = ["# Results", "",
             "Generated by `python benchmarks/results_page.py` from comparisons that `k3dn compare` has made; whatever "
             "came out is printed. Restorers that a comparison has trained (`--train`) saw the same samples and are "
             "scored with their last weights. How the figures are made: [numbers](how_numbers_are_made.md).", ""]
    for folder in sorted(kept.iterdir()) if kept.is_dir() else []:
        about, rows = json.loads((folder / "about.json").read_text(encoding="utf-8")), rows_of(folder / "table.csv")
        fields = [field for field in rows[0] if field in SHOWN or field.startswith("against ")]
        lines += [f"## {about['title']}", "", *([about["note"], ""] if about["note"] else []),
                  f"`{about['command']}`", "", *markdown(fields, rows), ""]
        for fact in about["facts"]:
            lines += [fact, ""]
        for name, text in (SCENES | FIGURES).items():
            if (pictures / folder.name / name).is_file():
                lines += [f"![{text}](assets/results/{folder.name}/{name})", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
