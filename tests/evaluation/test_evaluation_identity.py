"""Two results are of the same only where everything is the same that changes a number."""
import dataclasses
import sys

import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, TinyPairs

from k3dn_plugin.data.images import write_image
from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.evaluation.provenance import code_hash, data_hash, foreign_code, settings_hash
from k3dn_plugin.evaluation.results import RowFile, mean_of
from k3dn_plugin.registry import ARCHS, DATASETS


def built(name, **changes):
    torch.manual_seed(0)
    return ARCHS.build({"type": name, **ARCHS.get(name).tiny_arguments, **changes})


@pytest.mark.parametrize("name, setting, values", [
    ("K3DN", "residual", (False, True)), ("DMENet", "fidelity", (1.0, 2.0))])
def test_settings_that_change_no_weight_change_the_identity(name, setting, values):
    one, other = (built(name, **{setting: value}) for value in values)
    assert settings_hash(one) != settings_hash(other)
    assert settings_hash(one) == settings_hash(built(name, **{setting: values[0]}))


@pytest.mark.parametrize("name", ARCHS.names("*D*"))
def test_running_a_network_does_not_change_its_settings(name):
    if not ARCHS.get(name).__module__.startswith("k3dn_plugin."):
        pytest.skip("a test's own network")
    network = built(name).eval()
    before = settings_hash(network)
    with torch.no_grad():
        maps = {key: torch.zeros(1, 1, 64, 64) for key in network.maps}
        network(torch.rand(1, 6, 64, 64), **maps)
    assert settings_hash(network) == before


def test_simulated_sets_differ_by_settings_and_by_the_content_of_photographs(tmp_path):
    import numpy as np
    random = np.random.default_rng(0)

    def photographs(folder):
        for name in "ab":
            write_image(tmp_path / folder / f"{name}.png", random.integers(0, 256, (80, 80, 3), dtype=np.uint8))
        return str(tmp_path / folder)

    def simulated(**more):
        return data_hash(DATASETS.build({"type": "SimulatedDualPixelDataset", "length": 3, "crop_size": 64, **more}))
    first, second = photographs("one"), photographs("two")
    hashes = [simulated(photographs=first), simulated(photographs=second), simulated(photographs=first, shot=0.1),
              simulated(photographs=first, seed=1), simulated(photographs=first, length=4)]
    assert len(set(hashes)) == len(hashes) and simulated(photographs=first) == hashes[0]


def test_code_of_others_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "somebodys_network.py"
    path.write_text("X = 1\n")
    import somebodys_network
    before = code_hash(["somebodys_network"])
    path.write_text("X = 2\n")
    assert code_hash(["somebodys_network"]) != before and code_hash([]) == ""
    del sys.modules[somebodys_network.__name__]
    assert foreign_code([EvaluationConv()]) and not foreign_code([built("DPDNet")])


def test_a_changed_digit_makes_a_row_nobody_believes(tmp_path):
    network = EvaluationConv()
    whole = evaluate(network, TinyPairs(3), "full_float", out_dir=tmp_path, progress=False)
    whole.write(tmp_path)
    path = tmp_path / "per_image.csv"
    lines = path.read_text().splitlines()
    value = lines[2].split(",")[3]
    path.write_text("\n".join([*lines[:2], lines[2].replace(value, "46.78"), *lines[3:]]) + "\n")
    file = RowFile.at(path)
    assert [row.index for row in file.rows()] == [0, 2] and file.damaged == 1
    again = evaluate(network, TinyPairs(3), "full_float", out_dir=tmp_path, resume=True, progress=False)
    assert again.damaged == 1 and again.kept == 2 and again.means() == whole.means()


def test_rows_of_another_identity_are_not_believed_either(tmp_path):
    evaluate(EvaluationConv(), TinyPairs(2), "full_float", out_dir=tmp_path, progress=False).write(tmp_path)
    sidecar = tmp_path / "per_image.identity.json"
    sidecar.write_text(sidecar.read_text().replace('"full_float"', '"another"'))
    assert RowFile.at(tmp_path / "per_image.csv").rows() == []
    for damaged in ("[]", "{", "null", ""):
        sidecar.write_text(damaged)
        assert RowFile.at(tmp_path / "per_image.csv").rows() == []


def test_names_with_line_breaks_survive_their_file(tmp_path):
    row = evaluate(EvaluationConv(), TinyPairs(1), "full_float", progress=False).rows[0]
    file = RowFile(tmp_path / "per_image.csv", {"a": 1})
    odd = [dataclasses.replace(row, index=i, name=name, seconds=0.5)
           for i, name in enumerate(["two\nlines", 'a "b", c', "ä"])]
    file.start(odd)
    assert file.rows() == odd


def test_a_mean_is_never_nan():
    assert mean_of([1.0, float("inf"), 3.0]) == float("inf") and mean_of([1.0, 3.0]) == 2
