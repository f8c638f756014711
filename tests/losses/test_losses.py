"""Every registered loss answers the same questions; each formula is checked against its definition."""
import pytest
import torch

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.losses.multi_scale import half, laplacian
from k3dn_plugin.registry import LOSSES

NAMES = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("k3dn_plugin.")]


def make_batch(height=16, width=20):
    """A pair in focus with all that any loss reads, and its perfect prediction."""
    generator = torch.Generator().manual_seed(0)
    def image(channels):
        return torch.rand(2, channels, height, width, generator=generator)
    left = image(3)
    batch = {"lq": torch.cat([left, left], 1), "center": image(3), "gt": image(3), "name": ["a", "b"],
             "defocus": 10 * image(1) - 5, "disparity": image(1)}
    reblurred = {"left": left.clone(), "center": batch["center"].clone()}
    sharp_half = half(batch["gt"])
    defocus = (batch["defocus"].abs() + 1) / 15
    return {"restored": batch["gt"].clone(), "reblurred": reblurred, "scales": [sharp_half, half(sharp_half)],
            "warped_right": batch["gt"] / 2, "small_left": batch["gt"] / 2, "coc": torch.zeros(2, 3, height, width),
            "defocus": defocus, "defocus_scales": [defocus[..., ::2, ::2], defocus.clone()]}, batch


def changed(value, change):
    """A prediction with `change` applied to each of its tensors."""
    if isinstance(value, dict):
        return {key: changed(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [changed(part, change) for part in value]
    return change(value)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_prediction_costs_nearly_nothing(name):
    prediction, batch = make_batch()
    # What is added under a root (1e-6) leaves 1e-3 a scale.
    assert float(LOSSES.build({"type": name, "weight": 1.0})(prediction, batch)) == pytest.approx(0, abs=4e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_pulls_towards_the_target(name):
    prediction, batch = make_batch()
    generator = torch.Generator().manual_seed(1)
    worse = changed(prediction, lambda t: (t + 0.3 * torch.rand(t.shape, generator=generator)).requires_grad_())
    loss = LOSSES.build({"type": name, "weight": 1.0})(worse, batch)
    loss.backward()
    stepped = changed(worse, lambda t: t.detach() if t.grad is None else
                      (t - 0.05 * t.grad / t.grad.norm()).detach())
    assert LOSSES.build({"type": name, "weight": 1.0})(stepped, batch).item() < loss.item()


@pytest.mark.parametrize("name", NAMES)
def test_weight_scales(name):
    prediction, batch = make_batch()
    count = iter(range(1, 100))
    prediction = changed(prediction, lambda t: t * 0.5 + 0.01 * next(count) * torch.rand_like(t))
    one = LOSSES.build({"type": name, "weight": 1.0})(prediction, batch)
    three = LOSSES.build({"type": name, "weight": 3.0})(prediction, batch)
    assert float(one) > 0 and float(three) == pytest.approx(3 * float(one), rel=1e-5)


def test_formulas():
    prediction, batch = make_batch()
    off = {"restored": batch["gt"] + 0.25}
    assert float(LOSSES.build({"type": "L1Loss"})(off, batch)) == pytest.approx(0.25, rel=1e-5)
    assert float(LOSSES.build({"type": "MSELoss"})(off, batch)) == pytest.approx(0.0625, rel=1e-5)
    assert float(LOSSES.build({"type": "CharbonnierLoss", "eps": 0.0})(off, batch)) == pytest.approx(0.25)
    # A constant offset has no edges, and its whole energy sits in one Fourier coefficient.
    assert float(LOSSES.build({"type": "EdgeLoss"})(off, batch)) == pytest.approx(0, abs=1e-6)
    coefficients = 16 * (20 // 2 + 1) * 2
    assert float(LOSSES.build({"type": "FFTLoss"})(off, batch)) == pytest.approx(
        0.25 * (16 * 20) ** 0.5 / coefficients, rel=1e-4)


def test_psnr_loss_has_the_slope_of_the_negative_psnr():
    gt = make_batch()[1]["gt"].double()
    restored = (gt + 0.1 * torch.rand_like(gt)).requires_grad_()
    loss = LOSSES.build({"type": "PSNRLoss"})({"restored": restored}, {"gt": gt})
    psnr = (-10 * torch.log10((restored - gt).square().mean((1, 2, 3)))).mean()
    assert loss.item() == pytest.approx(80 - psnr.item(), abs=1e-4)
    torch.testing.assert_close(*torch.autograd.grad(loss, restored, retain_graph=True),
                               -torch.autograd.grad(psnr, restored)[0], rtol=1e-4, atol=0)


def test_other_keys_of_prediction_and_batch():
    prediction, batch = make_batch()
    prediction["reblurred"]["center"] = batch["center"] + 0.5
    loss = LOSSES.build({"type": "L1Loss", "predicted": "reblurred.center", "target": "center"})
    assert float(loss(prediction, batch)) == pytest.approx(0.5, rel=1e-5)


def test_missing_keys_and_shapes_are_named():
    prediction, batch = make_batch()
    with pytest.raises(OptionError, match="train.reblur"):
        LOSSES.build({"type": "ReblurConsistency"})({"restored": prediction["restored"]}, batch)
    with pytest.raises(OptionError, match="'depth'.*center, defocus, disparity, gt, lq"):
        LOSSES.build({"type": "L1Loss", "target": "depth"})(prediction, batch)
    with pytest.raises(SizeError, match="must agree"):
        LOSSES.build({"type": "L1Loss"})({"restored": prediction["restored"][..., :5]}, batch)
    with pytest.raises(OptionError, match="one of 'l1', 'mse'"):
        LOSSES.build({"type": "ReblurConsistency", "distance": "l3"})


def test_multi_scale_terms():
    gt = make_batch()[1]["gt"]
    off = {"restored": gt + 0.25, "scales": [half(gt)]}
    # A constant offset: its Charbonnier distance, its one Fourier coefficient (unnormalised, so the mean over
    # coefficients is the offset again), and what is added under the root of the perfect scale.
    wanted = 0.25 + 0.01 * 0.25 + 1e-3
    loss = LOSSES.build({"type": "MultiScaleLoss", "edge": 0.0})
    assert float(loss(off, {"gt": gt})) == pytest.approx(wanted, rel=1e-4)
    assert half(gt).shape[-2:] == (8, 10)
    flat = torch.full((1, 3, 16, 16), 0.7)
    assert torch.allclose(half(flat), flat[..., ::2, ::2])
    assert laplacian(flat)[..., 4:-4, 4:-4].abs().max() < 1e-6
    with pytest.raises(OptionError, match="multiples of 2"):
        LOSSES.build({"type": "MultiScaleLoss"})({"restored": gt, "scales": [gt]}, {"gt": gt})


@pytest.mark.parametrize("distance, pixel", [("l1", 0.25), ("mse", 0.0625)])
def test_multi_scale_terms_of_sfnet_and_iniknet(distance, pixel):
    gt = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(3))
    center = [(gt[..., 1::4, 1::4] + gt[..., 2::4, 1::4] + gt[..., 1::4, 2::4] + gt[..., 2::4, 2::4]) / 4]
    halves = torch.nn.functional.avg_pool2d(gt, 2)
    loss = LOSSES.build({"type": "MultiScaleLoss", "distance": distance, "frequency": 0.1, "spectrum": "parts",
                         "edge": 0.0, "pyramid": "bilinear"})
    exact = {"restored": gt, "scales": [halves, *center]}
    assert float(loss(exact, {"gt": gt})) == pytest.approx(0, abs=1e-6)
    # A constant offset is the pixel distance, and one real coefficient of the unnormalized transform.
    off = {"restored": gt, "scales": [halves + 0.25, *center]}
    coefficients = 8 * 12 * 2
    assert float(loss(off, {"gt": gt})) == pytest.approx(pixel + 0.1 * 0.25 * 8 * 12 / coefficients, rel=1e-4)


def test_sobel_gradients_of_a_slope():
    rows, columns = torch.meshgrid(torch.arange(16.), torch.arange(20.), indexing="ij")
    slope = (0.01 * columns).expand(1, 3, 16, 20)
    loss = LOSSES.build({"type": "MultiSobelLoss", "across": 1.0, "down": 0.0, "sizes": [3]})
    # (1 2 1) x (1 0 -1) / 2 on a slope of 0.01: 4 x 0.02 / 2.
    assert float(loss({"restored": slope}, {"gt": torch.zeros_like(slope)})) == pytest.approx(0.04 ** 2, rel=1e-4)
    down = LOSSES.build({"type": "MultiSobelLoss", "across": 0.0, "down": 1.0, "sizes": [3]})
    assert float(down({"restored": slope}, {"gt": torch.zeros_like(slope)})) == pytest.approx(0, abs=1e-9)
    sequence = slope[:, None].expand(1, 4, 3, 16, 20)
    assert float(loss({"restored": sequence}, {"gt": torch.zeros_like(sequence)})) == pytest.approx(0.0016, rel=1e-4)
    with pytest.raises(OptionError, match="some of 3, 7, 11"):
        LOSSES.build({"type": "MultiSobelLoss", "sizes": [5]})


def test_reblurred_at_a_fraction_of_the_size():
    batch = make_batch()[1]
    small = torch.nn.functional.avg_pool2d(batch["center"], 4)
    loss = LOSSES.build({"type": "ReblurConsistency"})
    assert float(loss({"reblurred": {"center": small}}, batch)) == pytest.approx(0, abs=1e-7)
    assert float(loss({"reblurred": {"center": small + 0.5}}, batch)) == pytest.approx(0.5, rel=1e-5)
