"""The papers' numbers and ours: both tables are sound, the page is the generated one, and rows come from runs."""
import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from k3dn_plugin.commands._numbers_page import numbers_page
from k3dn_plugin.comparison.published import published_figures
from k3dn_plugin.comparison.reproduced import (
    COLUMNS,
    PLAUSIBLE,
    add_score,
    reproduced_scores,
    score_of_summary,
)
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.registry import ARCHS, PROTOCOLS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "numbers.md"
SUMMARY = {
    "images": 76, "means": {"psnr": 26.65432, "ssim_uniform7": 0.83456, "mae": 0.03512, "input_psnr": 23.9},
    "tiling_changes_result": False, "protocol": {"name": "dpdd16"},
    "provenance": {"restorer": "LaKDNetDual", "weights_hash": "0" * 16, "data_hash": "d" * 16,
                   "weights": {"origin": "official weights", "file": "somewhere/best.pth", "sha256": "ab" * 32},
                   "data": {"name": "dpdd", "images": 76}, "settings": {"amp": None, "self_ensemble": False},
                   "device": "cpu (x86_64)", "versions": {"k3dn_plugin": "1.0"}}}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reproduced.csv"
    path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    return path


def summary_file(folder, **changes):
    """A summary.json with values set by dotted keys."""
    content = copy.deepcopy(SUMMARY)
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        part = content
        for key in parents:
            part = part[key]
        part[last] = value
    path = folder / "summary.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_published_rows_name_what_there_is():
    figures = published_figures()
    for figure in figures:
        assert figure.method and figure.evaluation and figure.source and figure.views in ("D", "S", "?")
        assert not figure.restorer or figure.restorer in ARCHS.names(), figure
        assert not figure.protocol or figure.protocol in PROTOCOLS.names(), figure
        for name, (low, high) in PLAUSIBLE.items():
            assert getattr(figure, name) is None or low <= getattr(figure, name) <= high, figure
        if figure.restorer and figure.views != "?":
            views = ARCHS.get(figure.restorer).card.views
            assert figure.restorer == "Restormer" or ("left" in views) == (figure.views == "D"), figure
    ours = [(figure.restorer, figure.method) for figure in figures if figure.restorer]
    assert len(set(ours)) == len(ours), "a measured row could not tell which it stands beside"


def test_reproduced_rows_are_sound():
    reproduced_scores()


def test_the_page_is_the_generated_one():
    """But for restorers that are not on it yet: a new one needs no edit elsewhere."""
    page, generated = PAGE.read_text(encoding="utf-8").splitlines(), numbers_page().splitlines()
    new = [name for name in ARCHS.names() if not any(f"`{name}`" in line for line in page)]
    generated = [line for line in generated if not any(f"`{name}`" in line for name in new)]
    assert page == generated, "the tables have changed: python tools/list_numbers.py -o docs/numbers.md"


def test_a_run_becomes_a_row_beside_the_published_one(table, tmp_path, monkeypatch):
    score = add_score(summary_file(tmp_path), by="Somebody", method="LaKDNet-S", path=table)
    assert reproduced_scores(table) == [score]
    assert (score.psnr, score.ssim, score.lpips, score.file) == (26.6543, 0.8346, None, "best.pth")
    # The same file and protocol once more takes its place; another protocol stands beside it.
    add_score(summary_file(tmp_path, means__psnr=26.7), by="Somebody", method="LaKDNet-S", path=table)
    add_score(summary_file(tmp_path, protocol__name="ifan8"), by="Somebody", method="LaKDNet-S", path=table)
    assert [row.psnr for row in reproduced_scores(table)] == [26.7, 26.6543]
    monkeypatch.setattr("k3dn_plugin.commands._numbers_page.reproduced_scores", lambda: reproduced_scores(table))
    lines = [line for line in numbers_page().splitlines() if line.startswith("| `LaKDNetDual` | LaKDNet-S")]
    assert [("26.70 dB (-0.02)" in line) for line in lines] == [True, False, False], "the same protocol alone"


@pytest.mark.parametrize("change, message", [
    ({"images": 74}, "all 76 of DPDD's test set, not 74"), ({"means__psnr": 48.0}, "psnr: expected a value of 15.0 to"),
    ({"tiling_changes_result": True}, "tiles that change the result"),
    ({"provenance__settings__amp": "bfloat16"}, "precision bfloat16"),
    ({"provenance__settings__self_ensemble": True}, "self-ensemble"),
    ({"provenance__weights__origin": "trained here"}, "'trained here', not of an official file"),
    ({"provenance__data__name": "mine"}, "the data set 'mine', not dpdd"),
    ({"provenance__restorer": "NoSuch"}, "0 published rows"), ({"protocol__name": "odd"}, "protocol: expected one of"),
    ({"means": {"psnr": 26.0, "mae": 0.03}}, "ssim: expected a value of 0.3 to 1.0, not None"),
    ({"means": None}, "summary.json that `test` writes")])
def test_runs_that_reproduce_nothing_are_refused(change, message, table, tmp_path):
    method = None if "provenance__restorer" in change else "LaKDNet-S"
    with pytest.raises((OptionError, DataError), match=message):
        add_score(summary_file(tmp_path, **change), by="Somebody", method=method, path=table)
    assert reproduced_scores(table) == []


def test_a_restorer_with_several_rows_asks_which():
    with pytest.raises(OptionError, match="2 published rows .LaKDNet-S, LaKDNet-L.; choose one by --method"):
        score_of_summary(SUMMARY, by="Somebody")


@pytest.mark.parametrize("spoil, message", [
    (lambda line: line.replace("LaKDNetDual", "LakDNet"), "restorer: expected a registered restorer, not 'LakDNet'"),
    (lambda line: line.replace("LaKDNet-S", "Restormer"), "method: expected one that published.csv has for LaKDNet"),
    (lambda line: line.replace("ab" * 32, "ab" * 31), "sha256: expected the 64 hexadecimal digits"),
    (lambda line: line.replace("26.6543", "high"), "line 2: expected numbers"),
    (lambda line: line.replace(",76,", ","), "line 2: expected 14 fields"),
    (lambda line: line.replace("Somebody", ""), "by: expected a text"),
    (lambda line: line + line, "line 3: the same file and protocol stand in line 2")])
def test_rows_typed_by_hand_are_checked(spoil, message, table, tmp_path):
    add_score(summary_file(tmp_path), by="Somebody", method="LaKDNet-S", path=table)
    head, line = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text(head + spoil(line), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        reproduced_scores(table)


def test_other_columns_are_reported(table):
    table.write_text("restorer,psnr\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected the columns restorer, method"):
        reproduced_scores(table)


def test_the_tool(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "list_numbers.py")]
    done = subprocess.run([*tool, "--add", str(summary_file(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 2 and "--add needs --by NAME" in done.stderr
    done = subprocess.run([*tool, "-o", str(tmp_path / "page.md")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == numbers_page()
