"""The whole comparison on tiny data: trained, killed, resumed, scored, reported; the report in a real browser."""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import browse, needs_browser

from k3dn_plugin.comparison.backends.local import LocalBackend
from k3dn_plugin.comparison.jobs import Job
from k3dn_plugin.comparison.schedule import run_jobs
from k3dn_plugin.data.images import read_image
from k3dn_plugin.errors import TrainingError
from k3dn_plugin.registry import ARCHS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "compare.py"
sys.path.insert(0, str(ROOT))

from benchmarks import results_page  # noqa: E402


def recipe(folder, name, network, store):
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({
        "name": name, "num_threads": 1, "network_g": {"type": network, **ARCHS.get(network).tiny_arguments},
        "datasets": {"train": {"type": "DualPixelDataset", "store": str(store), "crop_size": [48, 48],
                               "batch_size_per_gpu": 1}, "val": {"type": "DualPixelDataset", "store": str(store)}},
        "train": {"total_iter": 100, "optim_g": {"type": "SGD", "lr": 1e-3}, "losses": {"pixel": {"type": "L1Loss"}}},
        "val": {"save_img": 0, "val_freq": 1}}).replace("!!python/tuple", ""), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_store):
    """The folder of a comparison that was killed once, and what the second call printed."""
    folder = tmp_path_factory.mktemp("comparison")
    command = [sys.executable, str(TOOL), str(recipe(folder, "one", "K3DN", tiny_store)),
               str(recipe(folder, "two", "DRBNetDual", tiny_store)), "center", "--train", "--budget", "samples=4",
               "--jobs", "2", "--out", str(folder / "out"), "--data", str(tiny_store), "--size", "96", "112",
               "--latency-size", "48", "48", "--scenes", "2"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(folder.glob("out/runs/*/trained.json")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (folder / "out" / "report.html").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done.stdout, command


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_killed_comparison_goes_on(compared):
    _, printed, _ = compared
    assert "were done before and are kept" in printed and "report:" in printed


def test_numbers_are_those_of_the_pictures_and_the_rows(compared):
    out, _, _ = compared
    rows, table = rows_of(out / "results.csv"), {row["restorer"]: row for row in rows_of(out / "table.csv")}
    assert set(table) == {"one", "two", "blurred input"} and len(rows) == 3 * 6
    for label, row in table.items():
        mean = np.mean([float(r["psnr"]) for r in rows if r["label"] == label])
        assert float(row["psnr"]) == pytest.approx(mean, abs=1e-4)
    assert table["one"]["samples seen"] == table["two"]["samples seen"] == "4"
    assert {row["origin"] for row in rows} == {"trained here", "center view"}
    assert all(row["weights_hash"] and row["data_hash"] and row["protocol"] == "dpdd16" for row in rows)
    # The saved pictures have 8 bits, so their PSNR is that of the floats but for rounding.
    scene = next((out / "scores").glob("blurred_input-*")) / "scenes" / "0"
    restored, truth = (read_image(scene / f"{name}.png").astype(float) / 255 for name in ("restored", "truth"))
    psnr = -10 * np.log10(np.mean((restored - truth) ** 2))
    name = sorted({row["name"] for row in rows})[0]
    stored = next(float(r["psnr"]) for r in rows if r["label"] == "blurred input" and r["name"] == name)
    assert psnr == pytest.approx(stored, abs=0.05)


def test_a_page_shows_table_facts_figures_and_scenes(compared, tmp_path):
    out, _, _ = compared
    kept, pictures = tmp_path / "kept", tmp_path / "pictures"
    results_page.keep("tiny", out, "Tiny scenes", note="Made for the test.", kept=kept, pictures=pictures)
    text = results_page.page(kept, pictures)
    assert "## Tiny scenes\n\nMade for the test.\n" in text
    assert "| one |" in text and "against one" in text and "Data: tiny, 6 images" in text
    assert str(out) not in text, "no folder of this machine"
    assert "`k3dn compare one=one.yml two=two.yml center --train --budget samples=4 --seeds 1 --data " in text
    sheet = read_image(pictures / "tiny" / "scenes.jpg")
    assert sheet.shape[1] >= 4 * results_page.PANEL and (pictures / "tiny" / "differences.svg").is_file()


def test_the_folder_has_everything(compared):
    out, _, _ = compared
    for name in ("results.csv", "table.md", "table.tex", "report.html", "quality_parameters.svg", "quality_macs.png",
                 "per_image.png", "learning_curves.svg"):
        assert (out / name).stat().st_size > 100, name
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?https?:""", page), "the page loads nothing"
    assert "Inside the networks" in page and "trained here" in page


def test_another_plan_is_refused_and_the_same_does_nothing(compared):
    out, _, command = compared
    other = subprocess.run([*command, "--seeds", "7"], capture_output=True, text=True)
    assert other.returncode == 2 and "holds another comparison (different: seeds)" in other.stderr
    wrong = subprocess.run([*command, "--reference", "nobody"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "not one of one, two, blurred input" in wrong.stderr
    assert json.loads((out / "plan.json").read_text())["seeds"] == [1]


def test_a_failed_job_names_its_log(tmp_path):
    spec = {"recipe": str(tmp_path / "missing.yml"), "device": "cpu"}
    job = Job("train", "train x", {"recipe": "?"}, spec, tmp_path, tmp_path / "d.json")
    with pytest.raises(TrainingError, match=r"train x failed; its log .*train.log ends with:\n.*missing.yml"):
        run_jobs([job], LocalBackend(), log=lambda text: None)


def test_one_changed_digit_is_noticed(compared):
    """A changed score is not believed: the job is undone, and the same command scores that image anew."""
    out, _, command = compared
    path = next((out / "scores").glob("one_seed1/per_image.csv"))
    before, table = path.read_text(encoding="utf-8"), (out / "table.csv").read_text(encoding="utf-8")
    column = before.splitlines()[0].split(",").index("psnr")
    value = before.splitlines()[1].split(",")[column]
    path.write_text(before.replace(value, "4" + value[1:], 1), encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "score one, seed 1" in done.stdout and "score two" not in done.stdout
    scores = [[row[key] for row in rows_of(path) for key in ("name", "psnr", "mae")], table]
    again = (out / "table.csv").read_text(encoding="utf-8")
    assert value in scores[0] and again.split(",one,")[0][:40] == table[:40]
    means = {name: [float(row["psnr"]) for row in csv.DictReader(text.splitlines()) if row["restorer"] == "one"]
             for name, text in (("before", table), ("after", again))}
    assert means["before"] == means["after"]


ACTIONS = """<script>
const found = {errors: []};
window.addEventListener("error", event => found.errors.push(event.message));
window.addEventListener("load", () => setTimeout(() => {
  const table = document.querySelector("table.sortable"), head = [...table.tHead.rows[0].cells];
  const column = head.findIndex(cell => cell.textContent === "psnr");
  const values = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[column].textContent));
  head[column].click(); found.up = values();
  head[column].click(); found.down = values();
  const slider = document.getElementById("cut");
  slider.value = 80; slider.dispatchEvent(new Event("input"));
  found.cut = [...document.querySelectorAll(".view")].map(view => view.style.getPropertyValue("--cut"));
  document.querySelector(".view").dispatchEvent(new WheelEvent("wheel",
    {deltaY: -400, clientX: 60, clientY: 700, cancelable: true, bubbles: true}));
  found.zoom = document.getElementById("zoom").textContent;
  found.transforms = [...document.querySelectorAll(".view img")].map(
    image => image.style.transform.includes("scale(1)"));
  document.getElementById("errors").click();
  document.getElementById("scene").value = "1";
  document.getElementById("scene").dispatchEvent(new Event("change"));
  found.images = [...document.querySelectorAll(".view img")].length;
  const out = document.createElement("pre");
  out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out);
}, 300));
</script>"""


@needs_browser
def test_the_report_in_a_browser(compared, tmp_path):
    out, _, _ = compared
    page = tmp_path / "report.html"
    text = (out / "report.html").read_text(encoding="utf-8")
    page.write_text(text.replace("<head>", "<head>" + ACTIONS, 1), encoding="utf-8")
    dom = browse("--virtual-time-budget=8000", "--dump-dom", page.as_uri(), profile=tmp_path / "profile").stdout
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1])
    assert found["errors"] == []
    assert found["up"] == sorted(found["up"]) and found["down"] == sorted(found["up"], reverse=True)
    assert len(found["up"]) == 3 and set(found["cut"]) == {"80%"}
    assert found["zoom"] != "zoom 1.0" and not any(found["transforms"]), "all pictures zoom together"
    assert found["images"] == 2 * 4
    kept = Path(os.environ.get("K3DN_ARTIFACTS", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    browse(f"--screenshot={kept / 'report.png'}", (out / "report.html").as_uri(), profile=tmp_path / "profile")
    assert (kept / "report.png").stat().st_size > 20_000
