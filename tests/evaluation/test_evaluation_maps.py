"""Scores where there is no truth, of maps that restorers predict, and by measured disparity."""
import json

import numpy as np
import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, EvaluationIdentity, TinyPairs

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.commands import main
from k3dn_plugin.data.card import DatasetCard
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.errors import DataError, OptionError, SizeError
from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.evaluation.maps import predicted_map
from k3dn_plugin.registry import ARCHS, MAP_METRICS


class WithoutTruth(TinyPairs):
    """Pairs with depth and nothing to compare with, as DPD-disp."""

    card = DatasetCard(name="dpd_disp", hash="abc", bit_depth=16, truth=False, maps={"depth": "levels"})

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample["depth"] = sample.pop("gt")[:1] * 3 - 1
        sample["depth"][:, :5] = torch.nan
        return sample


class PredictsDepth(EvaluationIdentity):
    """Its map is an affine map of the depth (the center view's first channel stands for it here)."""

    def training_outputs(self, batch):
        return {**super().training_outputs(batch), "disparity_map": batch["lq"][:, :1] * -2 + 7}


def test_sets_without_truth_are_scored_by_what_needs_none():
    names = ["blur_bins", "preservation", "view_swap", "reblur"]
    row = evaluate(EvaluationConv(), WithoutTruth(1), "dpdd16", diagnostics=names, progress=False).rows[0]
    assert set(row.scores) == {"preservation_psnr", "view_swap_psnr", "reblur_psnr"} and row.input_scores == {}
    assert row.scores["view_swap_psnr"] > 0
    with pytest.raises(DataError, match="no truth.*--diagnostics preservation.*--map-metrics ai1,ai2,spearman"):
        evaluate(EvaluationConv(), WithoutTruth(1), "dpdd16", progress=False)


def test_a_predicted_map_is_scored_up_to_an_affine_map():
    class Known(WithoutTruth):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "depth": sample["lq"][:1] * 5 + 1}
    scores = evaluate(PredictsDepth(), Known(1), "dpdd16", map_metrics=["ai1", "ai2", "spearman"],
                      progress=False).rows[0].scores
    assert set(scores) == {"map_ai1", "map_ai2", "map_spearman"}
    assert all(value == pytest.approx(0, abs=1e-5) for value in scores.values())


def test_k3dns_disparity_is_a_map():
    network = ARCHS.build({"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}).eval()
    sample = WithoutTruth(1, size=(96, 120))[0]
    kind, found = predicted_map(network, sample)
    assert kind == "disparity" and found.shape == (1, 96, 120) and found.std() > 0
    scores = evaluate(network, WithoutTruth(1, size=(96, 120)), "dpdd16", map_metrics=["ai1"], progress=False)
    assert np.isfinite(scores.rows[0].scores["map_ai1"])


def test_networks_without_a_map_say_so():
    with pytest.raises(OptionError, match="EvaluationConv predicts no disparity or defocus map"):
        evaluate(EvaluationConv(), WithoutTruth(1), "dpdd16", map_metrics=["ai1"], progress=False)


@pytest.mark.parametrize("name", ["ai1", "ai2", "spearman"])
def test_map_metrics_refuse_pictures(name):
    with pytest.raises(SizeError, match=r"one shape \(1, H, W\)"):
        MAP_METRICS.build({"type": name})(torch.rand(3, 8, 8), torch.rand(3, 8, 8))


class Bands(TinyPairs):
    """Left half: views alike and sharp. Right half: blurred, the views 2 pixels apart."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        half = self.size[1] // 2
        disparity = torch.zeros(1, *self.size)
        disparity[..., half:] = -2
        center = torch.where(disparity == 0, sample["gt"], sample["center"])
        return {**sample, "disparity": disparity, "center": center, "lq": torch.cat([center, center])}


class Sharpens(Restorer):
    """Halves the right half's error, and darkens the left half a little."""

    card = EvaluationIdentity.card

    def __init__(self, truth):
        super().__init__()
        self.truth = truth

    def restore(self, views):
        half = self.truth.shape[-1] // 2
        out = views.clone()
        out[..., half:self.truth.shape[-1]] = (views[..., half:self.truth.shape[-1]] + torch.nn.functional.pad(
            self.truth, (0, 0, 0, views.shape[-2] - self.truth.shape[-2]))[..., half:]) / 2
        out[..., :half] -= 0.01
        return out


def test_gain_by_disparity_and_harm_in_focus():
    pairs = Bands(1)
    network = Sharpens(pairs[0]["gt"])
    scores = evaluate(network, pairs, "full_float", diagnostics=["disparity_bins"], progress=False).rows[0].scores
    assert scores["gain_disparity_1.5_3.5"] == pytest.approx(20 * np.log10(2), abs=0.01)
    assert scores["harm_in_focus"] == pytest.approx(100 - 40, abs=0.2) == -scores["gain_disparity_0_0.4"]
    assert scores["gain_disparity_0.4_1.5"] is None and scores["gain_disparity_3.5_up"] is None


def test_disparity_is_measured_where_none_is_stored():
    class Shifted(TinyPairs):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            noise = torch.rand(3, *self.size, generator=torch.Generator().manual_seed(1))
            return {**sample, "lq": torch.cat([noise.roll(1, -1), noise.roll(-1, -1)])}
    row = evaluate(EvaluationIdentity(), Shifted(1, size=(160, 160)), "full_float", diagnostics=["disparity_bins"],
                   progress=False).rows[0]
    assert row.scores["gain_disparity_1.5_3.5"] == 0 and row.scores["gain_disparity_0_0.4"] is None


def test_maps_that_are_not_in_pixels_are_no_blur_radius():
    class Levels(Bands):
        card = DatasetCard(name="levels", hash="a", bit_depth=16, maps={"defocus": "8-bit levels"})

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "defocus": torch.full((1, *self.size), 200.0)}
    result = evaluate(EvaluationIdentity(), Levels(1), "dpdd16", diagnostics=["blur_bins"], progress=False)
    scores = result.rows[0].scores
    assert scores["psnr_in_focus"] is not None, "200 levels are no radius of 200 pixels"


def test_test_scores_a_store_without_truth(tmp_path, capsys):
    store = tmp_path / "nt.lmdb"
    random = np.random.default_rng(0)
    with StoreWriter(store, dataset="dpd_disp", facts={"depth_unit": "levels"}) as writer:
        writer.add("one", {**{view: random.integers(0, 65536, (48, 64, 3), dtype=np.uint16)
                              for view in ("left", "right")},
                           "depth": random.random((48, 64), dtype=np.float32)})
        writer.finish()
    status = main(["test", "--weights", "center", "--data", str(store), "--out", str(tmp_path / "out"),
                   "--device", "cpu"])
    out, err = capsys.readouterr()
    assert status == 0, err
    assert "dpd_disp has no truth; scores that need none: preservation, reblur, view_swap" in out
    means = json.loads((tmp_path / "out" / "summary.json").read_text())["means"]
    assert set(means) == {"preservation_psnr", "view_swap_psnr"}
