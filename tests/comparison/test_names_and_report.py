"""Any name is harmless wherever it is shown, and labels in figures do not touch."""
import csv
import json
import re
import xml.dom.minidom
from pathlib import Path

import pytest

from k3dn_plugin.comparison.compare import compare
from k3dn_plugin.comparison.contestants import contestants_of
from k3dn_plugin.comparison.figures import _axes, place_labels
from k3dn_plugin.comparison.jobs import Backend
from k3dn_plugin.comparison.settings import Settings
from k3dn_plugin.comparison.tables import escaped_latex, escaped_markdown
from k3dn_plugin.comparison.worker import KINDS
from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.weights import save_weights

LABELS = ["$x_1$", "</script><b>bold</b>", "_hidden", "a|b", "two\nlines", "input", "truth", "a/b", "a_b", "A_B"]


@pytest.fixture(scope="module")
def named(tmp_path_factory, tiny_store):
    """A comparison of contestants with dangerous names, and the printed log."""
    folder = tmp_path_factory.mktemp("names")
    spec = {"type": "DPDNet", **ARCHS.get("DPDNet").tiny_arguments}
    weights = folder / "net.safetensors"
    save_weights(weights, ARCHS.build(spec), network_g=spec, provenance={})
    entries = ["center", *(f"{label}={weights}" for label in LABELS[:-3]),
               *(f"{label}=center" for label in LABELS[-3:])]
    settings = Settings(out=folder / "out", data=str(tiny_store), size=(96, 112), latency_size=(48, 48), scenes=1)
    lines = []

    class Here(Backend):
        """A back end that runs jobs in this process."""

        def has_room(self, job):
            return True

        def submit(self, job):
            spec = json.loads(job.write_spec().read_text(encoding="utf-8"))
            KINDS[spec["kind"]](spec)
            return job.key + job.title

        def poll(self, handle):
            return 0

        def cancel(self, handles):
            pass
    compare(contestants_of(entries, train=False), settings, log=lines.append, backend=Here())
    return folder / "out", lines


def test_every_label_has_its_own_folder_and_row(named):
    out, _ = named
    folders = [path.name for path in (out / "scores").iterdir()]
    assert len(folders) == len(LABELS) + 1 == len({name.lower() for name in folders})
    with open(out / "table.csv", newline="", encoding="utf-8") as file:
        assert {row["restorer"] for row in csv.DictReader(file)} == {"blurred input", *LABELS}


def test_html_holds_names_as_text(named):
    out, _ = named
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold" in page
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S)[1])
    shown = [image["label"] for image in data["scenes"][0]["images"]]
    assert shown == ["blurred input", *LABELS, "(truth)"]
    assert len({image["image"] for image in data["scenes"][0]["images"]}) > 2, "input and truth keep their own pictures"
    for path in out.glob("*.svg"):
        xml.dom.minidom.parse(str(path))


def test_identical_weights_are_said_to_be_identical(named):
    out, _ = named
    with open(out / "table.csv", newline="", encoding="utf-8") as file:
        found = {row["restorer"]: row["finding"] for row in csv.DictReader(file)}
    assert found["a/b"] == "identical weights and settings" and "weights" in found["$x_1$"]
    assert "identical" not in found["$x_1$"]


def test_markdown_and_latex_have_one_line_a_row(named):
    out, _ = named
    lines = (out / "table.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 1 + len(LABELS)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    tex = (out / "table.tex").read_text(encoding="utf-8")
    assert r"\$x\_1\$" in tex and r"\textless{}" in tex


@pytest.mark.parametrize("text, wanted", [("net_g", "net_g"), ("_x_", r"\_x\_"), ("a|b<c", r"a\|b\<c"),
                                          ("a\nb", "a b")])
def test_markdown(text, wanted):
    assert escaped_markdown(text) == wanted


def test_latex():
    assert escaped_latex("a\\b^{2}~\n%") == r"a\textbackslash{}b\textasciicircum{}\{2\}\textasciitilde{} \%"


def test_labels_do_not_touch():
    _, axes = _axes()
    points = [(1 + 0.001 * i, 20 + 0.002 * i) for i in range(24)]
    axes.scatter(*zip(*points, strict=True))
    boxes = place_labels(axes, points, [f"contestant {i}" for i in range(24)])
    assert len(boxes) == 24
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_labels_before_an_equals_sign(tmp_path):
    odd = tmp_path / "a=b.safetensors"
    odd.write_bytes(b"x")
    assert [one.label for one in contestants_of([str(odd), f"$y={odd}"], train=False)] == ["a=b", "$y"]
    with pytest.raises(OptionError, match="no label"):
        contestants_of([f"={odd}"], train=False)
    assert Path(odd).exists()
