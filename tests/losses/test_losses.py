"""Every registered loss answers the same questions; each formula is checked against its definition."""
import pytest
import torch

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.registry import LOSSES


def make_batch(height=12, width=14):
    generator = torch.Generator().manual_seed(0)
    def image(channels):
        return torch.rand(2, channels, height, width, generator=generator)
    batch = {"lq": image(6), "center": image(3), "gt": image(3), "name": ["a", "b"]}
    reblurred = {"left": batch["lq"][:, :3].clone(), "center": batch["center"].clone()}
    return {"restored": batch["gt"].clone(), "reblurred": reblurred}, batch


@pytest.mark.parametrize("name", LOSSES.names())
def test_perfect_prediction_costs_nearly_nothing(name):
    prediction, batch = make_batch()
    assert float(LOSSES.build({"type": name})(prediction, batch)) == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("name", LOSSES.names())
def test_gradient_pulls_towards_the_target(name):
    prediction, batch = make_batch()
    worse = {"restored": (prediction["restored"] + 0.3 * torch.rand_like(prediction["restored"]))
             .requires_grad_(),
             "reblurred": {k: (v + 0.3 * torch.rand_like(v)).requires_grad_()
                           for k, v in prediction["reblurred"].items()}}
    loss = LOSSES.build({"type": name})(worse, batch)
    loss.backward()
    tensors = [worse["restored"], *worse["reblurred"].values()]
    moved = {"restored": None, "reblurred": {}}
    stepped = [(t - 0.05 * t.grad / t.grad.norm()).detach() if t.grad is not None else t for t in tensors]
    moved["restored"] = stepped[0]
    moved["reblurred"] = dict(zip(worse["reblurred"], stepped[1:]))
    after = LOSSES.build({"type": name})(moved, batch)
    assert after.item() < loss.item()


@pytest.mark.parametrize("name", LOSSES.names())
def test_weight_scales(name):
    prediction, batch = make_batch()
    prediction = {"restored": prediction["restored"] * 0.5,
                  "reblurred": {k: v * 0.5 for k, v in prediction["reblurred"].items()}}
    one = LOSSES.build({"type": name, "weight": 1.0})(prediction, batch)
    three = LOSSES.build({"type": name, "weight": 3.0})(prediction, batch)
    assert float(three) == pytest.approx(3 * float(one), rel=1e-5)


def test_formulas():
    prediction, batch = make_batch()
    off = {"restored": batch["gt"] + 0.25}
    assert float(LOSSES.build({"type": "L1Loss"})(off, batch)) == pytest.approx(0.25, rel=1e-5)
    assert float(LOSSES.build({"type": "MSELoss"})(off, batch)) == pytest.approx(0.0625, rel=1e-5)
    assert float(LOSSES.build({"type": "CharbonnierLoss", "eps": 0.0})(off, batch)) == pytest.approx(0.25)
    # A constant offset has no edges, and its whole energy sits in one Fourier coefficient.
    assert float(LOSSES.build({"type": "EdgeLoss"})(off, batch)) == pytest.approx(0, abs=1e-6)
    coefficients = 12 * (14 // 2 + 1) * 2
    assert float(LOSSES.build({"type": "FFTLoss"})(off, batch)) == pytest.approx(
        0.25 * (12 * 14) ** 0.5 / coefficients, rel=1e-4)


def test_other_keys_of_prediction_and_batch():
    prediction, batch = make_batch()
    prediction["reblurred"]["center"] = batch["center"] + 0.5
    loss = LOSSES.build({"type": "L1Loss", "predicted": "reblurred.center", "target": "center"})
    assert float(loss(prediction, batch)) == pytest.approx(0.5, rel=1e-5)


def test_missing_keys_and_shapes_are_named():
    prediction, batch = make_batch()
    with pytest.raises(OptionError, match="train.reblur"):
        LOSSES.build({"type": "ReblurConsistency"})({"restored": prediction["restored"]}, batch)
    with pytest.raises(OptionError, match="'depth'.*center, gt, lq"):
        LOSSES.build({"type": "L1Loss", "target": "depth"})(prediction, batch)
    with pytest.raises(SizeError, match="must agree"):
        LOSSES.build({"type": "L1Loss"})({"restored": prediction["restored"][..., :5]}, batch)
    with pytest.raises(OptionError, match="one of 'l1', 'mse'"):
        LOSSES.build({"type": "ReblurConsistency", "distance": "l3"})
