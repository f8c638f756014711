"""Optimizers by name, schedules against BasicSR's own, and the moving average."""
import importlib.util
import math
from pathlib import Path

import pytest
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import SCHEDULES
from k3dn_plugin.training.optim import build_optimizer, check_optimizer, moving_average
from k3dn_plugin.training.schedules import build_schedule, check_schedule, learning_rate


def weights():
    return [torch.nn.Parameter(torch.ones(2, 2))]


def rates(spec, total, warmup=0, lr=0.1):
    optimizer = torch.optim.SGD(weights(), lr=lr)
    schedule = build_schedule(spec, optimizer, total_iter=total, warmup_iter=warmup)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def basicsr_schedulers():
    """BasicSR's file alone: importing the package would need torchvision as well."""
    package = importlib.util.find_spec("basicsr")
    if package is None:
        pytest.skip("basicsr is not installed")
    path = Path(package.origin).parent / "models" / "lr_scheduler.py"
    spec = importlib.util.spec_from_file_location("basicsr_lr_scheduler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def basicsr_rates(name, arguments, total, warmup=-1, lr=0.1):
    """The rates of BasicSR's training loop, iteration by iteration."""
    lr_scheduler = basicsr_schedulers()
    optimizer = torch.optim.SGD(weights(), lr=lr)
    schedule = getattr(lr_scheduler, name)(optimizer, **arguments)
    found = []
    for iteration in range(1, total + 1):
        if iteration > 1:
            optimizer.step()
            schedule.step()
        if iteration < warmup:
            optimizer.param_groups[0]["lr"] = lr / warmup * iteration
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("name, arguments", [
    ("MultiStepRestartLR", {"milestones": [3, 5], "gamma": 0.5}),
    ("MultiStepRestartLR", {"milestones": [3, 8], "gamma": 0.5, "restarts": [0, 6],
                            "restart_weights": [1, 0.5]}),
    ("CosineAnnealingRestartLR", {"periods": [4, 6], "restart_weights": [1, 0.5], "eta_min": 1e-3}),
])
def test_schedules_equal_those_of_basicsr(name, arguments):
    assert rates({"type": name, **arguments}, 10) == pytest.approx(basicsr_rates(name, arguments, 10))


def test_warm_up_equals_that_of_basicsr():
    arguments = {"periods": [10], "eta_min": 1e-3}
    expected = basicsr_rates("CosineAnnealingRestartLR", {**arguments, "restart_weights": [1]}, 10, warmup=4)
    assert rates({"type": "CosineAnnealingRestart", **arguments}, 10, warmup=4) == pytest.approx(expected)


def test_cosine_equals_torch_and_ends_at_its_floor():
    optimizer = torch.optim.SGD(weights(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.01)
    expected = []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates({"type": "CosineAnnealing", "eta_min": 0.01}, 8) == pytest.approx(expected)
    assert rates({"type": "CosineAnnealing", "T_max": 4}, 8)[4:] == [0.0] * 4


def test_multi_step_equals_torch():
    assert rates({"type": "MultiStep", "milestones": [2, 4]}, 6) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_cyclic_restart_has_a_floor_for_each_period():
    found = rates({"type": "CosineAnnealingRestartCyclicLR", "periods": [2, 4], "restart_weights": [1, 1],
                   "eta_mins": [0.05, 0.001]}, 8)
    assert found[2] == pytest.approx(0.05) and found[6:] == pytest.approx([0.001, 0.001])


def test_schedule_errors_name_the_key():
    with pytest.raises(OptionError, match="no schedule is called 'Cosine'.*CosineAnnealing"):
        check_schedule({"type": "Cosine"}, 10)
    with pytest.raises(OptionError, match="train.scheduler.milestone: .*Did you mean 'milestones'"):
        check_schedule({"type": "MultiStep", "milestone": [3]}, 10)
    with pytest.raises(OptionError, match="MultiStep needs milestones"):
        check_schedule({"type": "MultiStep"}, 10)
    with pytest.raises(OptionError, match=r"milestones\[1\]: expected"):
        check_schedule({"type": "MultiStep", "milestones": [3, "x"]}, 10)
    with pytest.raises(OptionError, match="periods has 2 entries, restart_weights has 1"):
        check_schedule({"type": "CosineAnnealingRestart", "periods": [2, 2], "restart_weights": [1.0]}, 4)
    with pytest.raises(OptionError, match="expected more than 0"):
        build_schedule({"type": "Constant"}, torch.optim.SGD(weights(), lr=0.0), total_iter=1)
    assert {"Constant", "CosineAnnealing", "MultiStep", "CosineAnnealingRestart"} <= set(SCHEDULES.names())


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "NAdam", "Adagrad"])
def test_any_optimizer_of_torch(name):
    assert type(build_optimizer({"type": name, "lr": 1e-3}, weights())).__name__ == name


def test_optimizer_errors_name_the_key():
    with pytest.raises(OptionError, match="no optimizer of torch.optim is called 'AdmaW'.*'AdamW'"):
        check_optimizer({"type": "AdmaW", "lr": 1e-3})
    with pytest.raises(OptionError, match="train.optim_g.weight_deacy.*'weight_decay'"):
        check_optimizer({"type": "Adam", "weight_deacy": 0.1})
    with pytest.raises(OptionError, match="train.optim_g.lr: expected float, found '1e-3x'"):
        check_optimizer({"type": "Adam", "lr": "1e-3x"})
    with pytest.raises(OptionError, match="train.optim_g.betas"):
        check_optimizer({"type": "Adam", "betas": [0.9]})
    with pytest.raises(OptionError, match="Adam refuses"):
        build_optimizer({"type": "Adam", "lr": -1.0}, weights())
    with pytest.raises(OptionError, match="LBFGS"):
        check_optimizer({"type": "LBFGS"})
    assert check_optimizer({"type": "Adam", "betas": [0.9, 0.99]})[1] == {"betas": (0.9, 0.99)}


def test_moving_average_of_weights_and_buffers():
    model = torch.nn.BatchNorm1d(1)
    model.register_buffer("table", torch.tensor([7, 9]))
    ema = moving_average(model, 0.999)
    expected = None
    for step in range(5):
        with torch.no_grad():
            model.weight.fill_(step)
            model.running_mean.fill_(step)
            model.num_batches_tracked.fill_(step)
        ema.update_parameters(model)
        decay = min(0.999, (1 + step) / (10 + step))
        expected = step if expected is None else decay * expected + (1 - decay) * step
    assert math.isclose(ema.module.weight.item(), expected, abs_tol=1e-6)
    assert math.isclose(ema.module.running_mean.item(), expected, abs_tol=1e-6)
    # Whole numbers are copied: averaged, 7 would become 6.
    assert ema.module.table.tolist() == [7, 9] and ema.module.num_batches_tracked.item() == 4
    assert not any(p.requires_grad for p in ema.parameters())
    assert moving_average(model, 0) is None


def test_a_short_stage_forgets_what_it_started_with():
    model = torch.nn.Linear(1, 1)
    ema = moving_average(model, 0.999)
    for step in range(1000):
        with torch.no_grad():
            model.weight.fill_(1.0 if step == 0 else 0.0)
        ema.update_parameters(model)
    assert ema.module.weight.item() < 1e-6   # 0.37 with one decay throughout


@pytest.mark.parametrize("spec, message", [
    ({"type": "CosineAnnealing", "T_max": 0}, "T_max: expected at least one"),
    ({"type": ["a"]}, "no schedule is called"),
    ({"type": "CosineAnnealingRestart", "periods": []}, "periods: expected one or more"),
    ({"type": "CosineAnnealingRestart", "periods": [0]}, "periods: expected one or more"),
    ({"type": {}}, "no schedule")])
def test_impossible_schedules_are_one_error(spec, message):
    with pytest.raises(OptionError, match=message):
        check_schedule(spec, 10)


def test_the_rate_of_a_recipe_without_one_is_the_optimizers_own():
    from types import SimpleNamespace
    stage = SimpleNamespace(optim_g={"type": "Adam"}, scheduler={"type": "Constant"}, total_iter=5, warmup_iter=0)
    assert learning_rate(stage)(3) == build_optimizer({"type": "Adam"}, weights()).param_groups[0]["lr"] == 1e-3
    with pytest.raises(OptionError, match="no optimizer of torch.optim is called"):
        check_optimizer({"type": {"a": "Adam"}})


def test_adam_is_fused_unless_the_recipe_says_otherwise():
    for name in ("Adam", "AdamW"):
        assert build_optimizer({"type": name, "lr": 0.1}, weights()).param_groups[0]["fused"] is True
        for own in ({"fused": False}, {"foreach": True}):
            groups = build_optimizer({"type": name, "lr": 0.1, **own}, weights()).param_groups
            assert groups[0]["fused"] in (False, None)
    assert not build_optimizer({"type": "SGD", "lr": 0.1}, weights()).param_groups[0].get("fused")


def test_an_optimizer_s_older_state_goes_on_as_it_was():
    """A state that was written before fused kernels were the default."""
    old = build_optimizer({"type": "Adam", "lr": 0.1, "foreach": False}, parameters := weights())
    parameters[0].grad = torch.ones(2, 2)
    old.step()
    new = build_optimizer({"type": "Adam", "lr": 0.1}, weights())
    state = old.state_dict()
    state["param_groups"][0]["fused"] = None
    new.load_state_dict(state)
    assert new.param_groups[0]["fused"] is None
