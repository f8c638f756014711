"""A whole evaluation: rows, means, resuming, sharing among processes, pictures, provenance."""
import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, EvaluationIdentity, TinyPairs

from k3dn_plugin.data.images import read_image
from k3dn_plugin.errors import DataError, OptionError, StorageError
from k3dn_plugin.evaluation.evaluate import evaluate, spread
from k3dn_plugin.evaluation.pictures import detail_window
from k3dn_plugin.evaluation.results import EvaluationResult, ImageRow, RowFile, plain
from k3dn_plugin.zoo.content import weights_hash
from k3dn_plugin.zoo.load import load_restorer


class CountingPairs(TinyPairs):
    """Counts which samples are read, and may stop as a killed process would."""

    def __init__(self, *args, stop_at=None, **more):
        super().__init__(*args, **more)
        self.read, self.stop_at = [], stop_at

    def __getitem__(self, index):
        if index == self.stop_at:
            raise KeyboardInterrupt
        self.read.append(index)
        return super().__getitem__(index)


def test_rows_and_means_against_an_independent_computation():
    pairs = TinyPairs(groups=("indoor", "outdoor", "indoor"))
    result = evaluate(EvaluationIdentity(), pairs, "dpdd16", progress=False)
    psnr = []
    for index in range(3):
        sample = pairs[index]
        error = sample["center"].double().numpy() - sample["gt"].double().numpy()
        psnr.append(10 * math.log10(1 / np.mean(error ** 2)))
        row = result.rows[index]
        assert row.name == sample["name"] and row.tiling == "whole" and row.same_as_whole
        assert row.scores["psnr"] == pytest.approx(psnr[-1], abs=1e-5)
        # The restorer that does nothing scores what doing nothing scores.
        assert row.input_scores == row.scores
    means = result.means()
    assert list(means) == ["psnr", "ssim_uniform7", "mae", "input_psnr", "input_ssim_uniform7", "input_mae"]
    assert means["psnr"] == pytest.approx(sum(psnr) / 3, abs=1e-5)
    assert result.groups() == ["indoor", "outdoor"]
    assert result.means("indoor")["psnr"] == pytest.approx((psnr[0] + psnr[2]) / 2, abs=1e-5)
    table = result.table()
    assert "input" in table and "restored" in table and "outdoor" in table and f"{means['psnr']:.4f}" in table


def test_files(tmp_path):
    result = evaluate(EvaluationConv(), TinyPairs(), "dpdd16", out_dir=tmp_path, save_pictures=2,
                      progress=False)
    summary = json.loads(result.write(tmp_path).read_text())
    assert summary["images"] == 3 and summary["means"] == result.means()
    assert summary["protocol"]["name"] == "dpdd16" and summary["protocol"]["metrics"]
    origin = summary["provenance"]
    assert origin["restorer"] == "EvaluationConv" and len(origin["weights_hash"]) == 16
    assert origin["data_hash"] and origin["device"].startswith("cpu") and origin["versions"]["torch"]
    with open(tmp_path / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["scene_00", "scene_01", "scene_02"]
    # Full precision: what is read back is what was computed.
    assert [ImageRow.from_flat(row).scores for row in rows] == [row.scores for row in result.rows]
    assert [p.name for p in result.pictures] == ["scene_00.png", "scene_02.png"]
    picture = read_image(result.pictures[0])
    assert picture.ndim == 3 and picture.shape[1] > 1500 and picture.std() > 10


def test_killed_evaluation_goes_on(tmp_path):
    network = EvaluationConv()
    unbroken = evaluate(network, TinyPairs(4), "full_float", progress=False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(network, CountingPairs(4, stop_at=2), "full_float", out_dir=tmp_path, progress=False)
    # A row cut short by the kill.
    with open(tmp_path / "per_image.csv", "a") as file:
        file.write("2,scene_02,,12.3")
    pairs = CountingPairs(4)
    result = evaluate(network, pairs, "full_float", out_dir=tmp_path, resume=True, progress=False)
    assert pairs.read == [2, 3] and result.kept == 2
    assert result.means() == unbroken.means()
    result.write(tmp_path)
    pairs = CountingPairs(4)
    again = evaluate(network, pairs, "full_float", out_dir=tmp_path, resume=True, progress=False)
    assert pairs.read == [] and again.kept == 4 and again.means() == unbroken.means()


@pytest.mark.parametrize("change", ["weights", "protocol", "settings", "data"])
def test_rows_of_something_else_are_not_kept_but_stay(tmp_path, change):
    evaluate(EvaluationConv(), TinyPairs(2), "full_float", out_dir=tmp_path, progress=False).write(tmp_path)
    old = (tmp_path / "summary.json").read_text()
    torch.manual_seed(5 if change == "weights" else 0)
    pairs = TinyPairs(3 if change == "data" else 2)
    loaded = load_restorer(EvaluationConv(), device="cpu", self_ensemble=change == "settings")
    result = evaluate(loaded, pairs, "basicsr_uint8" if change == "protocol" else "full_float", out_dir=tmp_path,
                      resume=True, progress=False)
    assert result.kept == 0
    kept = [p for p in tmp_path.glob("older_*/summary.json")]
    assert len(kept) == 1 and kept[0].read_text() == old


def test_shares_of_processes_make_the_whole(tmp_path):
    network, pairs = EvaluationConv(), TinyPairs(5)
    whole = evaluate(network, pairs, "dpdd16", progress=False)
    shares = [evaluate(network, pairs, "dpdd16", rank=rank, world_size=2, out_dir=tmp_path, save_pictures=5)
              for rank in range(2)]
    assert [r.index for r in shares[0].rows] == [0, 2, 4] and [r.index for r in shares[1].rows] == [1, 3]
    merged = EvaluationResult.merged(shares)
    assert merged.means() == whole.means() and len(merged.pictures) == 5
    merged.write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "per_image.csv", "per_image.identity.json", "pictures", "summary.json"]


def test_results_of_two_protocols_do_not_mix():
    results = [evaluate(EvaluationConv(), TinyPairs(1), name, progress=False) for name in ("dpdd16", "ifan8")]
    with pytest.raises(OptionError, match="dpdd16, ifan8.*do not belong in one table"):
        EvaluationResult.merged(results)


def test_mode_and_weights_are_left_alone():
    network = EvaluationConv().train()
    before = weights_hash(network)
    evaluate(network, TinyPairs(1), "dpdd16", progress=False)
    assert network.training and weights_hash(network) == before
    assert weights_hash(EvaluationConv()) != before


def test_weights_hash_sees_every_value_and_bfloat16():
    network = EvaluationConv().to(torch.bfloat16)
    before = weights_hash(network)
    with torch.no_grad():
        network.up.bias[0] += 1
    assert weights_hash(network) != before


def test_resizing_protocol_and_tiles():
    network, pairs = EvaluationConv(), TinyPairs(1, size=(150, 170))
    whole = evaluate(network, pairs, "k3dn_resize", progress=False)
    tiled = evaluate(load_restorer(network, device="cpu", tile=96), pairs, "k3dn_resize", progress=False)
    assert "tiles of 96 x 96" in tiled.rows[0].tiling
    assert tiled.means()["psnr"] == pytest.approx(whole.means()["psnr"], abs=1e-4)


def test_exceptions(tmp_path):
    network = EvaluationConv()
    with pytest.raises(DataError, match="holds no image"):
        evaluate(network, TinyPairs(0), "dpdd16")

    class Same(TinyPairs):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "name": "twin"}
    with pytest.raises(DataError, match="images 0 and 1 .*'twin'"):
        evaluate(network, Same(), "dpdd16", progress=False)

    class Blind(TinyPairs):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            del sample["gt"]
            return sample
    with pytest.raises(DataError, match="scene_00 has no truth"):
        evaluate(network, Blind(), "dpdd16", progress=False)
    with pytest.raises(OptionError, match="float16"):
        load_restorer(network, dtype="float16")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        evaluate(network, TinyPairs(1), "dpdd16", out_dir=tmp_path / "file" / "results", progress=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_full_disk_leaves_the_rows_written_before(tmp_path):
    file = RowFile(tmp_path / "per_image.csv", {"weights_hash": "a"})
    row = evaluate(EvaluationIdentity(), TinyPairs(1), "dpdd16", progress=False).rows[0]
    file.start([row])
    full = RowFile(tmp_path / "full.csv", {})
    full.path.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="full.csv.*untouched"):
        full.append(row)
    assert [kept.scores for kept in file.rows()] == [row.scores]


def test_names_may_hold_folders(tmp_path):
    class Sequences(TinyPairs):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "name": f"seq_000/{index:04d}"}
    result = evaluate(EvaluationConv(), Sequences(1), "dpdd16", out_dir=tmp_path, save_pictures=1,
                      progress=False)
    (picture,) = result.pictures
    assert picture.parent == tmp_path / "pictures" and picture.name.startswith("seq_000_0000") and picture.exists()


def test_spread_is_even():
    assert spread(3, 9) == {0, 4, 8} and spread(9, 2) == {0, 1}
    assert spread(0, 9) == set() and spread(1, 5) == {0}


def test_detail_is_where_the_blur_is():
    truth = torch.rand(3, 200, 300)
    blurred = truth.clone()
    blurred[:, 120:170, 200:280] = 0.5
    rows, columns = detail_window(blurred, truth)
    assert 100 <= rows.start <= 130 and 195 <= columns.start <= 220


def test_plain_data_is_json_everywhere():
    assert plain({"a": math.inf, "b": (1, math.nan)}) == {"a": "inf", "b": [1, "nan"]}
