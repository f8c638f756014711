"""Paired statistics against their definitions, and budgets that are equal in what they state."""
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from k3dn_plugin.comparison.budget import Budget, iterations_of, shortened
from k3dn_plugin.comparison.collect import higher_is_better
from k3dn_plugin.comparison.contestants import contestants_of
from k3dn_plugin.comparison.matrix import matrix_of, parse_choices
from k3dn_plugin.comparison.published import published_figures
from k3dn_plugin.comparison.statistics import bootstrap_interval, paired_difference, sign_test, spread
from k3dn_plugin.errors import OptionError, RegistryError
from k3dn_plugin.options import load_options
from k3dn_plugin.training.stages import plan_stages
from k3dn_plugin.zoo.sources import find_weights

DEMO = "options/k3dn_demo.yml"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    from pathlib import Path
    monkeypatch.chdir(Path(__file__).resolve().parents[2])


@pytest.mark.parametrize("wins, losses", [(0, 0), (3, 0), (5, 5), (9, 2), (1, 40)])
def test_the_sign_test_is_scipys(wins, losses):
    wanted = 1.0 if wins + losses == 0 else binomtest(wins, wins + losses).pvalue
    assert sign_test(wins, losses) == pytest.approx(wanted)


def test_paired_differences():
    reference = {f"image {i}": 20.0 + i for i in range(10)}
    scores = {name: value + (0.5 if i < 8 else -0.2) for i, (name, value) in enumerate(reference.items())}
    scores["image 3"] += 4
    found = paired_difference({**scores, "another": 99.0}, reference)
    assert found.mean == pytest.approx((7 * 0.5 + 4.5 - 0.4) / 10)
    assert found.low < found.mean < found.high
    assert (found.wins, found.losses, found.ties) == (8, 2, 0) and found.largest[0] == "image 3"
    lower = paired_difference(scores, reference, higher_is_better=False)
    assert (lower.wins, lower.losses) == (2, 8)
    with pytest.raises(ValueError, match="no image"):
        paired_difference({"a": 1.0}, {"b": 1.0})


def test_the_bootstrap_is_near_the_normal_interval_and_repeats():
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    error = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - error, abs=0.03)
    assert high == pytest.approx(values.mean() + error, abs=0.03)


def test_spread_over_seeds():
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0) and spread([5.0]) == (5.0, None)


def test_which_way_metrics_improve():
    assert higher_is_better("psnr") and not higher_is_better("mae") and higher_is_better("psnr_in_focus")


@pytest.mark.parametrize("budget, wanted", [("samples=2400", 300), ("iterations=120", 120)])
def test_budgets_shorten_every_stage_in_proportion(budget, wanted):
    options = load_options(DEMO)
    iterations = iterations_of(options, Budget.parse(budget))
    assert iterations == wanted
    recipe = shortened(options, iterations)
    stages = [stage["total_iter"] for stage in recipe["train"]["stages"]]
    assert sum(stages) == recipe["train"]["total_iter"] == wanted
    assert stages[0] / wanted == pytest.approx(550 / 700, abs=0.01)


def test_equal_macs_give_the_dearer_network_fewer_iterations():
    budget = Budget.parse("macs=1e14")
    dear, cheap = (iterations_of(load_options(f"options/{name}_demo.yml"), budget) for name in ("k3dn", "restormer"))
    assert 10 < dear < cheap


def test_shortened_schedules_keep_their_shape(tmp_path):
    recipe = shortened(load_options("options/restormer_dpdd.yml"), 3000)
    assert recipe["train"]["scheduler"]["periods"] == [920, 2080]
    assert [phase["iterations"] for phase in recipe["train"]["phases"]] == [920, 640, 480, 360, 360, 240]
    recipe = shortened(load_options("options/dpdnet_dpdd.yml"), 280)
    assert recipe["train"]["scheduler"]["milestones"] == [84, 168, 252]
    path = tmp_path / "recipe.yml"
    import json

    import yaml
    path.write_text(yaml.safe_dump(json.loads(json.dumps(shortened(load_options("options/bambnet_dpdd.yml"), 700)))))
    assert plan_stages(load_options(path))[-1].end == 700


@pytest.mark.parametrize("text", ["samples", "hours=3", "samples=0", "samples=x"])
def test_wrong_budgets_are_reported(text):
    with pytest.raises(OptionError, match="expected one of samples=N"):
        Budget.parse(text)


def test_a_budget_below_one_iteration_a_stage_is_reported():
    with pytest.raises(OptionError, match="fewer than its 2 stages"):
        iterations_of(load_options(DEMO), Budget.parse("samples=8"))


def test_contestants(tmp_path):
    found = contestants_of([DEMO, "mine=options/drbnet_demo.yml", "center"], train=True)
    assert [one.label for one in found] == ["k3dn_demo", "mine", "blurred input"]
    with pytest.raises(OptionError, match="two contestants are called 'a'"):
        contestants_of([f"a={DEMO}", "a=options/drbnet_demo.yml"], train=True)
    with pytest.raises(OptionError, match="nowhere.safetensors: no such file"):
        contestants_of(["nowhere.safetensors"], train=False)


def test_released_weights_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, = contestants_of(["k3dn_s_real"], train=False)
    assert (found.label, found.recipe, Path(found.weights)) == ("k3dn_s_real", None, find_weights("k3dn_s_real"))
    assert contestants_of(["a=k3dn_s_real"], train=False)[0].label == "a"
    found, = contestants_of(["k3dn_s_real"], train=True)
    assert found.weights is None and Path(found.recipe).name == "k3dn_s_real.yml"
    own = tmp_path / "experiments" / "k3dn_s_real" / "models" / "best.safetensors"
    own.parent.mkdir(parents=True)
    own.touch()
    assert contestants_of(["k3dn_s_real"], train=False)[0].weights == Path(*own.parts[-4:])


def test_the_matrix_is_every_combination_and_each_is_a_recipe():
    choices = parse_choices(["disparity=CostVolumeDisparity,ConcatDisparity", "deblur=KernelSetDeblur,ConvDeblur",
                             "reblur=KernelSetReblur,none", "preservation=ConcatSkip,SharpRegionPreservation"])
    found = matrix_of(DEMO, choices)
    assert len(found) == 16 and len({one.label for one in found}) == 16
    for one in found:
        options = load_options(one.recipe, one.overrides)
        conv = options.network_g["deblur"]["type"] == "ConvDeblur"
        assert (options.train.reblur is None) == (conv or "no reblur" in one.label)
        assert ("reblur" in options.train.losses) == (options.train.reblur is not None)
        assert options.network_g["preservation"]["type"] in one.label


def test_preservation_and_reblur_around_another_restorer():
    found = matrix_of("options/drbnet_demo.yml", parse_choices(["reblur=CoCReblur,none",
                                                                "preservation=GatedSkip,none"]))
    kinds = {one.label: load_options(one.recipe, one.overrides) for one in found}
    assert kinds["CoCReblur + GatedSkip"].network_g["type"] == "PreservedRestorer"
    assert kinds["CoCReblur + GatedSkip"].train.losses["reblur"]["type"] == "ReblurConsistency"
    assert kinds["no reblur + no preservation"].network_g["type"] == "DRBNetDual"
    with pytest.raises(OptionError, match="has no slot 'deblur'"):
        matrix_of("options/drbnet_demo.yml", {"deblur": ["ConvDeblur"]})


def test_the_blur_map_is_a_slot_of_ldp_alone():
    choices = parse_choices(["blur_map=DisparityBlurMap,CoCBlurMap,FileBlurMap,none", "preservation=none,AddSkip"])
    found = {one.label: load_options(one.recipe, one.overrides).network_g
             for one in matrix_of("options/ldp_dpdd.yml", choices)}
    assert len(found) == 8
    assert found["no blur_map + no preservation"]["blur_map"] is None
    assert found["CoCBlurMap + no preservation"]["blur_map"] == {"type": "CoCBlurMap"}
    assert found["FileBlurMap + AddSkip"]["restorer"]["blur_map"] == {"type": "FileBlurMap"}
    own = matrix_of("options/ldp_dpdd.yml", {"blur_map": ["DisparityBlurMap", "CoCBlurMap"]},
                    ["network_g.blur_map.vector_size=8"])
    assert [load_options(one.recipe, one.overrides).network_g["blur_map"] for one in own] == [
        {"type": "DisparityBlurMap", "vector_size": 8}, {"type": "CoCBlurMap"}]
    with pytest.raises(OptionError, match="K3DN has no slot 'blur_map'; of it can be chosen disparity, deblur"):
        matrix_of(DEMO, choices)


@pytest.mark.parametrize("texts, error, message", [
    (["kernel=A"], OptionError, "expected one of disparity=A,B"), ([], OptionError, "needs --choices"),
    (["deblur=WienrDeblur"], RegistryError, "WienerDeblur")])
def test_wrong_choices_are_reported(texts, error, message):
    with pytest.raises(error, match=message):
        parse_choices(texts)


def test_quoted_figures_say_where_they_come_from():
    assert all(one.source and 20 < one.psnr < 30 for one in published_figures())
