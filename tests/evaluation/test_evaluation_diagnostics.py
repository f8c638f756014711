"""Scores by local blur, and scores without truth, on images where the answer is known."""
import csv
import math

import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, EvaluationIdentity, TinyPairs

from k3dn_plugin.archs.k3dn_arch import K3DN
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.diagnostics import blur_radius, gaussian_blur, masked_psnr
from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.evaluation.results import ImageRow
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.load import load_restorer


class HalfInFocus(TinyPairs):
    """The left half of the frame is sharp, the right half blurred by 3 pixels, which `defocus` says."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        defocus = torch.zeros(1, *self.size)
        defocus[..., self.size[1] // 2:] = -3
        center = torch.where(defocus == 0, sample["gt"], sample["center"])
        return {**sample, "defocus": defocus, "center": center, "lq": torch.cat([center, center])}


def test_blur_bins_with_a_known_map():
    pairs = HalfInFocus(1)
    row = evaluate(EvaluationIdentity(), pairs, "dpdd16", diagnostics=["blur_bins"], progress=False).rows[0]
    sample = pairs[0]
    error = (sample["center"] - sample["gt"]).double().square().mean(0)[:, 42:]
    assert row.scores["psnr_in_focus"] == row.scores["psnr_blur_0_1"] == 100
    assert row.scores["psnr_out_of_focus"] == pytest.approx(10 * math.log10(1 / float(error.mean())))
    assert row.scores["psnr_blur_2_4"] == row.scores["psnr_out_of_focus"]
    assert row.scores["psnr_blur_1_2"] is None and row.scores["psnr_blur_8_up"] is None
    assert row.input_scores["psnr_out_of_focus"] == row.scores["psnr_out_of_focus"]


def test_blur_is_estimated_where_there_is_no_map():
    gt = TinyPairs(size=(96, 120))[0]["gt"]
    blurred = gt.clone()
    blurred[:, :, 60:] = gaussian_blur(gt, 2.0)[:, :, 60:]
    radius = blur_radius({}, {"gt": gt}, blurred)
    assert (radius[:, :50] < 1).float().mean() > 0.95
    assert (radius[:, 75:] - 4).abs().median() < 0.5  # a disc of radius 4 has the spread of sigma 2


def test_values_that_do_not_apply_survive_the_file_and_the_mean(tmp_path):
    result = evaluate(EvaluationIdentity(), HalfInFocus(2), "dpdd16", diagnostics=["blur_bins", "reblur"],
                      out_dir=tmp_path, progress=False)
    result.write(tmp_path)
    with open(tmp_path / "per_image.csv", newline="") as file:
        rows = [ImageRow.from_flat(row) for row in csv.DictReader(file)]
    assert rows[1].scores == result.rows[1].scores and rows[1].scores["reblur_psnr"] is None
    means = result.means()
    assert "psnr_in_focus" in means and "psnr_blur_1_2" not in means and "reblur_psnr" not in means
    assert "psnr_in_focus" in result.table()


def test_preservation_and_view_swap():
    names = ["preservation", "view_swap"]
    pairs, settings = TinyPairs(1), {"diagnostics": names, "progress": False}
    perfect = evaluate(EvaluationIdentity(), pairs, "dpdd16", **settings).rows[0]
    assert perfect.scores["preservation_psnr"] == perfect.scores["view_swap_psnr"] == 100
    network = EvaluationConv()
    row = evaluate(network, pairs, "dpdd16", **settings).rows[0]
    gt = pairs[0]["gt"]
    with torch.no_grad():
        back = network(torch.cat([gt, gt])[None])[0].clamp(0, 1)
    assert row.scores["preservation_psnr"] == pytest.approx(
        10 * math.log10(1 / float((back - gt).double().square().mean())), abs=1e-6)
    assert row.scores["view_swap_psnr"] < 40
    twice = evaluate(load_restorer(network, device="cpu", self_ensemble=True), pairs, "dpdd16", **settings).rows[0]
    assert twice.scores["view_swap_psnr"] > 80  # the ensemble is symmetric by construction


def test_reblur_consistency_of_k3dn():
    network = ARCHS.build({"type": "K3DN", **K3DN.tiny_arguments, "residual": True})
    row = evaluate(network, TinyPairs(1), "dpdd16", diagnostics=["reblur"], progress=False).rows[0]
    assert math.isfinite(row.scores["reblur_psnr"])


def test_unknown_diagnostic():
    with pytest.raises(OptionError, match="'blur'.*blur_bins, disparity_bins, preservation, reblur, view_swap"):
        evaluate(EvaluationIdentity(), TinyPairs(1), "dpdd16", diagnostics=["blur"])


def test_masked_psnr_of_nothing():
    assert masked_psnr(torch.rand(3, 4, 4), torch.rand(3, 4, 4), torch.zeros(4, 4, dtype=torch.bool)) is None
