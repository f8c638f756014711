"""Every option file resolves, is checked to its components, and builds the network that it promises."""
import json
from pathlib import Path

import pytest
import yaml

from k3dn_plugin.commands._restorer_page import restorer_names
from k3dn_plugin.evaluation.cost import count_macs
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.training.stages import plan_stages

FOLDER = Path(__file__).resolve().parents[1] / "options"
RECIPES = sorted(p.name for p in FOLDER.glob("*.yml"))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_whole(name):
    options = load_options(FOLDER / name)
    assert options.name == Path(name).stem
    stages = plan_stages(options)
    assert stages[-1].end == options.train.total_iter
    for stage in stages:
        rule = ARCHS.build(stage.network_g).size_rule
        crop = stage.dataset.model_extra["crop_size"]
        assert rule.accepts(*crop), f"{name}: crops of {crop} would be padded in every iteration"


@pytest.mark.parametrize("name, parameters", [
    ("k3dn_dpdd.yml", 16_099_350), ("k3dn_m_dpdd.yml", 7_912_384), ("k3dn_s_dpdd.yml", 2_850_704)])
def test_sizes_of_k3dn(name, parameters):
    model = ARCHS.build(load_options(FOLDER / name).network_g)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_demo_differs_from_the_full_recipe_in_data_size_and_length_alone():
    full, demo = (load_options(FOLDER / f"{n}.yml") for n in ("k3dn_dpdd", "k3dn_demo"))
    for key in ("losses", "reblur", "scheduler", "grad_clip", "amp"):
        assert getattr(full.train, key) == getattr(demo.train, key)
    assert [s.name for s in full.train.stages] == [s.name for s in demo.train.stages]
    assert full.val.protocol == demo.val.protocol


@pytest.mark.parametrize("name", RECIPES)
def test_the_stored_options_are_the_same_recipe(name, tmp_path):
    options = load_options(FOLDER / name)
    stored = tmp_path / "options.yml"
    stored.write_text(yaml.safe_dump(json.loads(json.dumps(options.as_dict()))), encoding="utf-8")
    again = load_options(stored)
    assert again.hash() == options.hash()
    assert plan_stages(again) == plan_stages(options)


def test_every_restorer_is_trained_on_identical_data():
    """Recipes differ in the size and number of their crops, in nothing else of the data or its validation."""
    sections = {}
    for name in RECIPES:
        options = load_options(FOLDER / name).as_dict()
        if name.endswith("_dpdd.yml"):
            for key in ("crop_size", "batch_size_per_gpu"):
                options["datasets"]["train"].pop(key)
            sections[name] = {"datasets": options["datasets"], "val": options["val"]}
    assert len({json.dumps(section, sort_keys=True) for section in sections.values()}) == 1


REAL = [name for name in RECIPES if "_real" in name]


def test_recipes_for_real_photographs_differ_in_the_network_alone():
    """The same data, length, batch and optimizer for K3DN, its ablations and its rivals."""
    assert {"k3dn_s_real.yml", "restormer_s_real.yml", "nafnet_s_real.yml", "drbnet_s_real.yml"} < set(REAL)
    sections = set()
    for name in REAL:
        options = load_options(FOLDER / name).as_dict()
        training = {key: options["train"][key] for key in ("total_iter", "optim_g", "scheduler", "global_batch",
                                                           "ema_decay", "grad_clip", "warmup_iter")}
        sections.add(json.dumps([options["datasets"], options["val"], training], sort_keys=True))
    assert len(sections) == 1


def test_rivals_on_real_photographs_cost_what_k3dn_s_costs():
    macs = {name: count_macs(ARCHS.build(load_options(FOLDER / name).network_g), (288, 384))
            for name in REAL if not name.startswith("k3dn_s_real_no")}
    for name, found in macs.items():
        assert found == pytest.approx(macs["k3dn_s_real.yml"], rel=0.06), name


def test_every_restorer_has_a_recipe():
    trained = {load_options(FOLDER / name).network_g["type"] for name in RECIPES if name.endswith("_dpdd.yml")}
    assert trained >= set(restorer_names())
