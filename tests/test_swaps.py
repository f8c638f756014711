"""Any part for any other, by one option: deblur x disparity in K3DN, reblur beside and preservation after any restorer."""
import json

import pytest
import torch
import yaml

from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS, MODULES
from k3dn_plugin.training import train
from k3dn_plugin.zoo.weights import restorer_from_weights


def of_folder(folder):
    return [n for n in MODULES.names() if MODULES.get(n).__module__.startswith(f"k3dn_plugin.modules.{folder}.")]


def tiny(name, **changed):
    return {"type": name, **ARCHS.get(name).tiny_arguments, **changed}


@pytest.fixture
def run(tiny_store, tmp_path):
    """Train two iterations, with `--set` lines as a user would write them; the result."""
    def trained(network_g, *changes, reblur=None):
        losses = {"pixel": {"type": "L1Loss"}}
        if reblur:
            losses["reblur"] = {"type": "ReblurConsistency", "weight": 0.5}
        recipe = tmp_path / "swap.yml"
        recipe.write_text(yaml.safe_dump(json.loads(json.dumps({
            "name": "swap", "num_threads": 1, "network_g": network_g,
            "datasets": {"train": {"type": "DualPixelDataset", "store": str(tiny_store), "crop_size": [96, 96],
                                   "augment": "dp_safe", "batch_size_per_gpu": 1}},
            "train": {"total_iter": 2, "optim_g": {"type": "SGD", "lr": 1e-3}, "losses": losses, "reblur": reblur},
            "path": {"experiments_root": str(tmp_path)},
            "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False}}))), encoding="utf-8")
        return train(load_options(recipe, changes), device="cpu", quiet=True)
    return trained


@pytest.mark.parametrize("deblur", [*of_folder("deblur"), None])
def test_every_deblur_module_trains_in_k3dn(run, deblur):
    part = None if deblur is None else {"type": deblur, "blocks": 1}
    result = run(tiny("K3DN"), f"network_g.deblur={'null' if part is None else part}".replace("'", ""))
    assert result.finished
    assert type(restorer_from_weights(result.last_weights).deblur).__name__ == (deblur or "NoneType")


@pytest.mark.parametrize("disparity", of_folder("disparity"))
@pytest.mark.parametrize("deblur", ["WienerDeblur", "AtrousDeblur"])
def test_every_disparity_module_steers_any_deblur_module(disparity, deblur):
    extra = {"pools": [6, 3]} if disparity == "CostVolumeDisparity" else {}
    model = ARCHS.build(tiny("K3DN", disparity={"type": disparity, **extra}, deblur={"type": deblur, "blocks": 1}))
    assert model(torch.rand(1, 6, 48, 96)).shape == (1, 3, 48, 96)


@pytest.mark.parametrize("restorer", ["K3DN", "Restormer", "DRBNetDual", "BaMBNet"])
@pytest.mark.parametrize("reblur", ["CoCReblur", "DepthReblur"])
def test_reblur_modules_train_beside_any_restorer(run, restorer, reblur):
    result = run(tiny(restorer), reblur={"type": reblur})
    assert result.finished and all(row["loss/reblur"] > 0 for row in result.history)


def test_a_reblur_module_may_read_what_the_restorer_predicts(run):
    assert run(tiny("DDDNet"), reblur={"type": "DepthReblur", "predicted": "disparity_map"}).finished
    assert run(tiny("BaMBNet", coc_network=True), "name=coc",
               reblur={"type": "CoCReblur", "predicted": "coc"}).finished


@pytest.mark.parametrize("preservation", of_folder("preservation"))
@pytest.mark.parametrize("restorer", ["Restormer", "IFANDual"])
def test_preservation_follows_any_restorer(run, restorer, preservation):
    wrapped = {"type": "PreservedRestorer", "restorer": tiny(restorer), "channels": 4,
               "preservation": {"type": preservation}}
    model = ARCHS.build(wrapped).eval()
    pair = torch.rand(1, 6, 48, 64)
    with torch.inference_mode():  # it starts as the restorer alone
        assert torch.allclose(model(pair), model.restorer(pair), atol=1e-6)
    assert model.card.views == model.restorer.card.views and model.size_rule == model.restorer.size_rule
    result = run(wrapped)
    assert result.finished
    again = restorer_from_weights(result.last_weights)
    assert again.out.weight.abs().sum() > 0, "the join was trained"


def test_preservation_and_reblur_around_k3dn(run):
    wrapped = {"type": "PreservedRestorer", "restorer": tiny("K3DN"), "preservation": {"type": "AddSkip"},
               "channels": 4}
    assert run(wrapped, reblur={"type": "KernelSetReblur"}).finished
