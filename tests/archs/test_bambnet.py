"""BaMBNet beyond what every restorer is asked: its masks, its CoC network, its reblurring constraint."""
import copy

import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.archs.bambnet_arch import BaMBNet
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.branch_network import CoCNetwork
from k3dn_plugin.layers.coc_kernels import blur_by_radius, cross_blur, gaussian_smooth, ramp_disc
from k3dn_plugin.layers.filters import total_variation
from k3dn_plugin.zoo.formats.base import official_format

TINY = BaMBNet.tiny_arguments


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    torch.manual_seed(0)
    return BaMBNet(**{**TINY, **arguments}).double()


def batch_of(height=32, width=48):
    return {"lq": random(2, 6, height, width), "gt": random(2, 3, height, width, seed=1)}


def test_parameters_of_the_published_networks():
    with torch.device("meta"):
        restorer, coc, both = BaMBNet(), CoCNetwork(), BaMBNet(coc_network=True)
    count = [sum(p.numel() for p in model.parameters()) for model in (restorer, coc, both)]
    assert count == [4_497_731, 4_497_731, 2 * 4_497_731]
    assert len(official_format("bambnet").to_official(restorer.state_dict())) == 452


def test_shares_follow_radius_and_step():
    model = build(mask_iterations=100)
    radius = torch.tensor([0.0, 1.99, 2.0, -3.9, 4.0, -24.0]).double().view(1, 1, 1, 6)
    first = model.shares(radius, torch.tensor(0))
    assert first.argmax(1).flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert first.sum(1).eq(1).all()
    half = model.shares(radius, torch.tensor(50))
    torch.testing.assert_close(half.amin().item(), 1 - torch.exp(torch.tensor(-1.0)).item())
    assert half.amax() == 1
    assert model.shares(radius, torch.tensor(100)).eq(1).all()


def test_largest_magnitude_of_the_colours_counts():
    model = build()
    radius = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    radius[:, 2] = -5
    assert model.shares(radius, torch.tensor(0)).argmax(1).eq(2).all()


def test_masks_in_training_only_and_step_by_step():
    model, batch = build(mask_iterations=3), batch_of()
    batch["coc"] = 30 * random(2, 3, 32, 48, seed=2) - 15
    with torch.no_grad():
        unmasked = model.eval().training_outputs(batch)["restored"]
        torch.testing.assert_close(model(batch["lq"]), unmasked)
        model.train()
        masked = []
        for _ in range(3):
            masked.append(model.training_outputs(batch)["restored"])
            # A second accumulated batch of the same iteration sees the same masks.
            torch.testing.assert_close(model.training_outputs(batch)["restored"], masked[-1])
            model.after_iteration()
        changes = [(image - unmasked).abs().max().item() for image in masked]
    assert changes[0] > changes[1] > 1e-9
    assert changes[2] < 1e-12, "the masks end after mask_iterations steps"
    assert model.mask_step == 3
    resumed = build(mask_iterations=3)
    resumed.load_state_dict(model.state_dict())
    assert resumed.mask_step == 3


def test_without_a_map_nothing_is_masked():
    model, batch = build().train(), batch_of()
    with torch.no_grad():
        trained = model.training_outputs(batch)["restored"]
        torch.testing.assert_close(model.eval()(batch["lq"]), trained)
    with pytest.raises(SizeError, match="coc: expected"):
        model.train().training_outputs({**batch, "coc": random(2, 32, 48)})


def test_own_coc_network_is_not_trained_through_the_masks():
    model, batch = build(coc_network=True).train(), batch_of(20, 27)
    prediction = model.training_outputs(batch)
    assert prediction["coc"].shape == (2, 3, 20, 27)
    prediction["restored"].mean().backward(retain_graph=True)
    assert all(p.grad is None for p in model.coc.parameters())
    prediction["coc"].square().mean().backward()
    assert any(p.grad is not None for p in model.coc.parameters())


def test_coc_is_limited():
    network = CoCNetwork(width=4, blocks=(1,), reduction=2)
    with torch.no_grad():
        network.network.tail_hard[0].bias += torch.tensor([100.0, -100.0, 0.0])
        found = network(torch.rand(1, 6, 16, 32))
    assert found[:, 0].eq(24).all() and found[:, 1].eq(-24).all()


@pytest.mark.parametrize("radius", [0, 1, 2, 7, 24])
def test_ramp_disc_is_the_published_kernel(radius):
    kernel = ramp_disc(radius)
    assert kernel.shape == (2 * radius + 1,) * 2 and kernel.sum().item() == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0))
    if radius:
        assert kernel[0, 0] == 0 and kernel[radius, -1] == kernel[radius, -2]
        assert (kernel[radius, -1] / kernel[radius, 0]).item() == pytest.approx(2 * radius)


def test_blur_interpolates_between_whole_radii():
    image = random(1, 2, 12, 14)
    at = {r: blur_by_radius(image, torch.full_like(image, r), rising=True) for r in (2, 2.25, 3, -2, 0, 24.5)}
    torch.testing.assert_close(at[2.25], 0.75 * at[2] + 0.25 * at[3])
    torch.testing.assert_close(at[0], image)
    kernel = ramp_disc(2).repeat(2, 1, 1, 1)
    torch.testing.assert_close(at[2], F.conv2d(image, kernel, padding=2, groups=2))
    torch.testing.assert_close(at[-2], F.conv2d(image, kernel.flip(-1), padding=2, groups=2))
    torch.testing.assert_close(at[24.5], 0.5 * blur_by_radius(image, torch.full_like(image, 24), rising=True))


@pytest.mark.parametrize("radius", [3.0, -4.0])
def test_cross_blurred_views_agree_for_the_true_radius_only(radius):
    sharp = random(1, 3, 48, 48)
    one = ramp_disc(abs(int(radius))).repeat(3, 1, 1, 1)
    if radius < 0:
        one = one.flip(-1)
    # Convolution is correlation with the kernel turned by 180 degrees.
    left, right = (F.conv2d(sharp, k.flip(-1, -2), padding="same", groups=3) for k in (one, one.flip(-1)))
    def gap(r):
        a, b = cross_blur(left, right, torch.full((1, 1, 48, 48), r, dtype=torch.float64))
        return (a - b)[..., 12:-12, 12:-12].abs().mean().item()
    assert gap(radius) < 1e-12 < 1e-4 < min(gap(-radius), gap(radius + 1), gap(0.0))


def test_gradcheck_of_the_constraint():
    views = random(1, 2, 5, 6).requires_grad_()
    radius = (3 * random(1, 2, 5, 6, seed=1) - 1.5).requires_grad_()
    torch.autograd.gradcheck(lambda v, r: blur_by_radius(v, r, rising=True, max_radius=3), (views, radius))


def test_smoothing_and_variation():
    constant = torch.ones(1, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(gaussian_smooth(constant), constant)
    assert total_variation(constant) == 0
    constant[0, 0, 2, 2] = 3
    assert total_variation(constant) == 8


@pytest.mark.parametrize("arguments, message", [
    ({"width": 8, "reduction": 16}, "width >= reduction"), ({"mask_thresholds": [4.0, 2.0]}, "rising order"),
    ({"mask_thresholds": [2.0]}, "expected 2 positive radii"), ({"mask_iterations": -1}, "0 or more")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        build(**arguments)


def test_official_files_are_recognised_and_converted():
    known = official_format("bambnet")
    model = BaMBNet(width=8, blocks=[1, 2, 3], reduction=2)
    official = known.to_official(model.state_dict())
    assert "layer8.3.0.body.2.body.3.conv_du.2.bias" in official and "mask_step" not in official
    network, settings = known.recognise({k: tuple(v.shape) for k, v in official.items()})
    assert (network, settings) == ("bambnet", {"width": 8, "branch_rcabs": [0, 1, 2, 3], "ca_reduction": 2})
    other = known.build(settings, network)
    known.load(other, {k: v.numpy() for k, v in official.items()}, network)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    coc = known.build(settings, "bambnet_coc")
    known.load(coc, copy.deepcopy({k: v.numpy() for k, v in official.items()}), "bambnet_coc")
    assert known.recognise({"kconv1_1.0.weight": (1,)}) is None
