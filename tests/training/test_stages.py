"""Stages: what is overridden, carried over, frozen, and refused."""
import pytest
import torch
from training_questions import STAGES

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.options import load_options
from k3dn_plugin.training.stages import plan_rows, plan_stages
from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.zoo.weights import read_weights


def second(**keys):
    """The two-stage recipe with `keys` in its second stage."""
    stages = STAGES["train"]["stages"]
    return {"train": {"total_iter": 10, "stages": [stages[0], {**stages[1], **keys}]}}


def test_plan_merges_what_is_a_component_and_replaces_the_rest(recipe):
    base, refine = plan_stages(load_options(recipe(second(
        datasets_train={"batch_size_per_gpu": 1}, ema_decay=0.9, scheduler={"eta_min": 1e-5}))))
    assert (base.start, base.end, refine.start, refine.end) == (0, 5, 5, 10)
    assert base.network_g == {"type": "TinyRestorer"} and refine.network_g["refine"] is True
    assert list(base.losses) == ["fft", "pixel"] and list(refine.losses) == ["pixel"]
    assert refine.optim_g == {"type": "Adam", "lr": 1e-3}
    assert refine.scheduler == {"type": "CosineAnnealing", "eta_min": 1e-5}
    assert (base.dataset.batch_size_per_gpu, refine.dataset.batch_size_per_gpu) == (2, 1)
    assert (base.ema_decay, refine.ema_decay) == (0.5, 0.9)


def test_a_stage_may_switch_the_reblur_module_off(recipe):
    with_reblur = {"train": {"reblur": {"type": "KernelSetReblur"}}}
    base, refine = plan_stages(load_options(recipe(second(reblur=None), with_reblur)))
    assert base.reblur == {"type": "KernelSetReblur"} and refine.reblur is None
    base, refine = plan_stages(load_options(recipe(second(), with_reblur)))
    assert refine.reblur == base.reblur


def test_the_base_is_carried_over_and_stays_as_it_is(trained):
    result = trained(STAGES)
    base = read_weights(result.folder / "models" / "base.safetensors")
    final = read_weights(result.last_weights)
    assert base.network_g == {"type": "TinyRestorer"} and final.network_g["refine"] is True
    for key, value in base.state.items():  # the batch norm's statistics among them
        assert torch.equal(value, final.state[key]), key
    assert {k for k in final.state if k not in base.state} == {"refine.weight", "refine.bias"}
    state = load_state(state_files(result.folder / "states")[0])
    assert len(state["optimizer"]["state"]) == 2
    scores = {row["iteration"]: row["val/psnr"] for row in result.history if "val/psnr" in row}
    assert set(scores) == {3, 5, 6, 9, 10} and result.best["scores"]["psnr"] == max(scores.values())
    assert read_weights(result.best_weights).provenance["iteration"] == result.best["iteration"]
    assert not torch.equal(final.state["refine.weight"], state["restorer"]["refine.weight"])


def test_new_keys_must_be_trained(trained):
    with pytest.raises(CheckpointError, match="'refine' cannot start.*2 are new but not trained.*refine.w"):
        trained(second(trainable=["last.*"]))


def test_keys_without_a_place_are_refused(trained):
    stages = STAGES["train"]["stages"]
    with pytest.raises(CheckpointError, match="have no place in it .refine.weight"):
        trained({"network_g": {"refine": True}, "train": {"total_iter": 10, "stages": [
            stages[0], {"name": "less", "total_iter": 5, "network_g": {"refine": False}}]}})


def test_other_shapes_are_refused(trained):
    with pytest.raises(CheckpointError, match=r"first.weight: \(4, 6, 3, 3\) there, \(5, 6, 3, 3\) here"):
        trained(second(network_g={"refine": True, "width": 5}, trainable=None))


def test_a_pattern_without_a_match_names_near_parameters(trained):
    with pytest.raises(OptionError, match="'refine.wieght' matches no parameter.*'refine.weight'"):
        trained(second(trainable=["refine.*", "refine.wieght"]))


def test_names_of_stages_differ(recipe):
    with pytest.raises(OptionError, match="names must differ"):
        plan_stages(load_options(recipe(second(name="base"))))


def test_every_stage_is_checked_before_training(trained, tmp_path):
    with pytest.raises(OptionError, match=r"train.stages\[1\].optim_g.lrr: .*'lr'"):
        trained(second(optim_g={"lrr": 1e-3}))
    with pytest.raises(OptionError, match=r"train.stages\[1\].scheduler.type: .*'MultiStep'"):
        trained(second(scheduler={"type": "MultiStepp"}))
    assert not (tmp_path / "experiments").exists()


def test_training_blocks_that_are_missing(recipe):
    with pytest.raises(OptionError, match="training needs the block `datasets.train`"):
        plan_stages(load_options(recipe({"datasets": {"train": None}})))
    with pytest.raises(OptionError, match="train.losses: name at least one"):
        plan_stages(load_options(recipe({"train": {"losses": {"_delete_": True}}})))


def test_a_reblur_module_that_no_loss_reads_is_reported(trained):
    result = trained({"train": {"total_iter": 1, "reblur": {"type": "CoCReblur"}}})
    log = (result.folder / "train.log").read_text(encoding="utf-8")
    assert "CoCReblur is computed, but no loss of stage 'train' reads" in log


@pytest.mark.parametrize("crop", [{"type": "K3DN"}, [96], "whole", [96, "96"]])
def test_a_crop_that_is_none_is_told_by_the_plan(crop):
    options = load_options("k3dn_s_real")
    options.datasets.train.model_extra["crop_size"] = crop
    with pytest.raises(OptionError, match=r"datasets.train.crop_size: expected one number or \[rows, columns\], found"):
        plan_rows(options, 1)
