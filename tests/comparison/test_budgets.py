"""One budget for all is one: every shipped recipe sees the samples that are stated, stage by stage."""
from pathlib import Path

import pytest

from k3dn_plugin.comparison.budget import Budget, iterations_of, samples_seen, shortened
from k3dn_plugin.errors import OptionError
from k3dn_plugin.options import load_options, parse_options
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.training.stages import plan_stages, share_stage

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "options").glob("*.yml") if "total_iter" in path.read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_sees_the_budget(name):
    options = load_options(ROOT / "options" / f"{name}.yml")
    if options.train is None:
        pytest.skip("trains nothing")
    budget = Budget("samples", 48_000)
    recipe = parse_options(shortened(options, iterations_of(options, budget)))
    largest = max(phase.global_batch for stage in plan_stages(options) for phase in share_stage(stage, 1))
    seen = samples_seen(recipe, recipe.train.total_iter)
    # Phases are whole iterations, so what is left is less than one of each.
    phases = sum(len(share_stage(stage, 1)) for stage in plan_stages(options))
    assert budget.amount - phases * largest <= seen <= budget.amount


def test_samples_are_those_of_every_phase():
    options = load_options(ROOT / "options" / "restormer_dpdd.yml")
    phases = [phase for stage in plan_stages(options) for phase in share_stage(stage, 1)]
    assert len({phase.global_batch for phase in phases}) > 1, "a recipe with one batch would show nothing"
    assert samples_seen(options, options.train.total_iter) == sum(p.iterations * p.global_batch for p in phases)
    first = phases[0].iterations
    assert samples_seen(options, first + 10) - samples_seen(options, first) == 10 * phases[1].global_batch


def test_seconds_count_the_steps_of_every_stage_with_the_optimizer():
    store = {"type": "SimulatedDualPixelDataset", "crop_size": 48, "length": 4}
    options = parse_options({
        "name": "x", "network_g": {"type": "DPDNet", **ARCHS.get("DPDNet").tiny_arguments},
        "datasets": {"train": store}, "train": {
            "total_iter": 100, "optim_g": {"type": "Adam", "lr": 1e-4}, "losses": {"pixel": {"type": "L1Loss"}},
            "stages": [{"name": "a", "total_iter": 90}, {"name": "b", "total_iter": 10}]}})
    budget = Budget("seconds", 50.0)
    assert iterations_of(options, budget, seconds=[[1.0], [1.0]]) == 50
    assert iterations_of(options, budget, seconds=[[1.0], [10.0]]) == 24     # 22 and 2: 42 s; 25: 52 s
    assert iterations_of(options, Budget("seconds", 20.0)) >= 2     # measured here


@pytest.mark.parametrize("text", ["samples=inf", "samples=nan", "samples=-3", "epochs=3"])
def test_impossible_budgets_are_refused(text):
    with pytest.raises(OptionError, match="expected one of samples=N"):
        Budget.parse(text)
