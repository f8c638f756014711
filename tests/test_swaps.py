"""Any part for any other, by one option: in K3DN's slots, and reblurring or preservation beside any restorer."""
import json

import pytest
import torch
import yaml

from k3dn_plugin.commands._restorer_page import restorer_names
from k3dn_plugin.errors import OptionError
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS, LOSSES, MODULES
from k3dn_plugin.training import train
from k3dn_plugin.training.graph import TrainingGraph
from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.zoo.weights import read_weights, restorer_from_weights


def of_folder(folder):
    return [n for n in MODULES.names() if MODULES.get(n).__module__.startswith(f"k3dn_plugin.modules.{folder}.")]


def tiny(name, **changed):
    return {"type": name, **ARCHS.get(name).tiny_arguments, **changed}


@pytest.fixture
def run(tiny_store, tmp_path):
    """Train two iterations, with `--set` lines as a user would write them; the result."""
    def trained(network_g, *changes, reblur=None, with_reblur_loss=False, resume=None):
        losses = {"pixel": {"type": "L1Loss"}}
        if reblur or with_reblur_loss:
            losses["reblur"] = {"type": "ReblurConsistency", "weight": 0.5}
        recipe = tmp_path / "swap.yml"
        recipe.write_text(yaml.safe_dump(json.loads(json.dumps({
            "name": "swap", "num_threads": 1, "network_g": network_g,
            "datasets": {"train": {"type": "DualPixelDataset", "store": str(tiny_store), "crop_size": [96, 96],
                                   "augment": "dp_safe", "batch_size_per_gpu": 1}},
            "train": {"total_iter": 2, "optim_g": {"type": "SGD", "lr": 1e-3}, "losses": losses, "reblur": reblur},
            "path": {"experiments_root": str(tmp_path)},
            "logger": {"print_freq": 1, "save_checkpoint_freq": 1, "use_tb_logger": False}}))), encoding="utf-8")
        return train(load_options(recipe, changes), resume=resume, device="cpu", quiet=True)
    return trained


@pytest.mark.parametrize("deblur", [*of_folder("deblur"), None])
def test_every_deblur_module_trains_in_k3dn(run, deblur):
    part = None if deblur is None else {"type": deblur, "blocks": 1}
    result = run(tiny("K3DN"), f"network_g.deblur={'null' if part is None else part}".replace("'", ""))
    assert result.finished
    assert type(restorer_from_weights(result.last_weights).deblur).__name__ == (deblur or "NoneType")


@pytest.mark.parametrize("disparity", [*of_folder("disparity"), None])
@pytest.mark.parametrize("deblur", of_folder("deblur"))
def test_every_disparity_module_steers_every_deblur_module(run, disparity, deblur):
    extra = {"pools": [6, 3]} if disparity == "CostVolumeDisparity" else {}
    changes = [f"network_g.deblur={json.dumps({'type': deblur, 'blocks': 1})}",
               f"network_g.disparity={json.dumps(disparity and {'type': disparity, **extra})}"]
    result = run(tiny("K3DN"), *changes)
    assert result.finished and all(row["loss/pixel"] > 0 for row in result.history)
    parts = restorer_from_weights(result.last_weights)
    assert type(parts.deblur).__name__ == deblur
    assert type(parts.disparity).__name__ == (disparity or "NoneType")


@pytest.mark.parametrize("restorer", restorer_names())
@pytest.mark.parametrize("reblur", [n for n in of_folder("reblur") if n != "KernelSetReblur"])
def test_every_reblur_module_reaches_every_restorer(restorer, reblur):
    """KernelSetReblur reverses K3DN's own deblur module, and says so beside others; the rest need no such help."""
    torch.manual_seed(0)
    model = ARCHS.build(tiny(restorer)).train()
    pair = torch.rand(1, 6, 64, 64)
    graph = TrainingGraph(model, reblur=MODULES.build({"type": reblur}),
                          losses={"reblur": LOSSES.build({"type": "ReblurConsistency"})})
    batch = {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": torch.rand(1, 3, 64, 64)}
    graph(batch)["reblur"].backward()
    for part in (model, graph.reblur):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


@pytest.mark.parametrize("restorer", ["K3DN", "Restormer", "DRBNetDual"])
@pytest.mark.parametrize("reblur", of_folder("reblur"))
def test_a_reblur_module_is_one_option_trained_saved_and_resumed(run, restorer, reblur):
    change = f"train.reblur.type={reblur}"
    if reblur == "KernelSetReblur" and restorer != "K3DN":
        with pytest.raises(OptionError, match=f"KernelSetReblur reverses .* {restorer} does not have"):
            run(tiny(restorer), change, with_reblur_loss=True)
        return
    result = run(tiny(restorer), change, with_reblur_loss=True)
    assert result.finished and all(row["loss/reblur"] > 0 for row in result.history)
    torch.manual_seed(0)
    fresh = MODULES.build({"type": reblur}).state_dict()
    states = state_files(result.folder / "states")
    whole = load_state(states[0])
    assert (whole["reblur"] or {}).keys() == fresh.keys(), "saved beside the restorer"
    assert not any(key.startswith("reblur") for key in read_weights(result.last_weights).state), "not part of it"
    states[0].unlink()  # as if killed after the first iteration
    resumed = run(tiny(restorer), change, with_reblur_loss=True, resume="auto")
    again = load_state(state_files(resumed.folder / "states")[0])
    assert resumed.iterations == 2
    for part in ("restorer", "reblur"):
        assert all(torch.equal(value, again[part][key]) for key, value in whole[part].items())
    first = load_state(state_files(resumed.folder / "states")[1])["reblur"]
    assert not fresh or any(not torch.equal(first[key], again["reblur"][key]) for key in fresh), "it was trained"


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
