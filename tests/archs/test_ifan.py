"""IFAN beyond what every restorer is asked: its filters, its warp, its training parts, its official files."""
import pytest
import torch

from k3dn_plugin.archs.ifan_arch import IFAN, IFANDual, warp_along_rows
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.adaptive_filter import (
    adaptive_convolution,
    filter_channels,
    iterative_adaptive_convolution,
    split_filters,
)
from k3dn_plugin.modules.reblur.filter_reblur import FilterReblur
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.zoo.formats.base import official_format

PUBLISHED = [("ifan", 17, 10_476_996), ("ifan_dual", 17, 10_477_860), ("ifan", 8, 9_436_740),
             ("ifan", 26, 11_517_252), ("ifan", 35, 12_557_508), ("ifan", 44, 13_597_764)]


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return IFAN(**IFAN.tiny_arguments).double().eval()


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(height, width):
    return {"lq": random(2, 6, height, width), "center": random(2, 3, height, width, seed=1),
            "gt": random(2, 3, height, width, seed=2)}


@pytest.mark.parametrize("network, iterations, wanted", PUBLISHED)
def test_parameters_of_the_published_networks(network, iterations, wanted):
    with torch.device("meta"):
        model = official_format(network).build({"width": 32, "N": iterations, "Fs": 3}, network)
    assert sum(p.numel() for p in model.parameters()) == wanted


@pytest.mark.parametrize("both", [False, True])
def test_adaptive_convolution_pixel_by_pixel(both):
    height, width, channels, k = 4, 6, 2, 3
    features = random(1, channels, height, width)
    kernels = random(1, 2 * channels * k, height, width, seed=1) - 0.5
    bias = random(1, channels, height, width, seed=2)
    found = adaptive_convolution(features, kernels, bias, both_kernels=both)
    across = channels * k if both else 0
    for ch in range(channels):
        taps = kernels[0, ch * k:ch * k + k]
        row_taps = kernels[0, across + ch * k:across + ch * k + k]
        vertical = torch.zeros(height, width, dtype=torch.float64)
        for y in range(height):
            for x in range(width):
                vertical[y, x] = sum(taps[i, y, x] * features[0, ch, min(max(y + i - 1, 0), height - 1), x]
                                     for i in range(k))
        for y in range(height):
            for x in range(width):
                wanted = bias[0, ch, y, x] + sum(
                    row_taps[j, y, x] * vertical[y, min(max(x + j - 1, 0), width - 1)] for j in range(k))
                assert found[0, ch, y, x].item() == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize("activate_last", [False, True])
def test_identity_filters_leave_features(activate_last):
    channels, k, n = 2, 3, 4
    filters = torch.zeros(1, filter_channels(n, channels, k), 3, 5, dtype=torch.float64)
    filters[:, 1:n * 2 * channels * k:k] = 1  # the centre tap of every kernel
    features = random(1, channels, 3, 5)
    found = iterative_adaptive_convolution(features, split_filters(filters, n, channels, k), slope=0.1,
                                           activate_last=activate_last)
    torch.testing.assert_close(found, features)


def test_adaptive_convolution_gradcheck():
    inputs = [(random(1, c, 3, 4, seed=c) - 0.5).requires_grad_() for c in (2, 12, 2)]
    torch.autograd.gradcheck(adaptive_convolution, inputs)


def test_filters_one_by_one_are_the_filters_at_once(small):
    pair = batch_of(24, 40)
    with torch.no_grad():
        at_once = small.training_outputs(pair)["restored"].clamp(0, 1)
        one_by_one = small(pair["lq"], pair["center"])
    torch.testing.assert_close(one_by_one, at_once, rtol=1e-12, atol=1e-12)


def test_clipped_in_evaluation_only(small):
    pair = batch_of(16, 24)
    with torch.no_grad():
        small.out[0].bias += 5
        assert small(pair["lq"]).max() == 1
        assert small.train()(pair["lq"]).max() > 1
        small.out[0].bias -= 5
    small.eval()


def test_second_kernels_act_only_when_asked_for():
    torch.manual_seed(0)
    pair = batch_of(16, 24)
    for both in (False, True):
        model = IFAN(**IFAN.tiny_arguments, both_kernels=both).double().eval()
        taps = model.channels * model.kernel_size
        with torch.no_grad():
            before = model(pair["lq"])
            model.filters[-1].weight[taps:2 * taps] += 1
            assert torch.equal(model(pair["lq"]), before) != both


def test_warp_looks_to_the_right_along_rows_only():
    image = random(1, 3, 4, 7)
    found = warp_along_rows(image, torch.full((1, 1, 4, 7), 2.0, dtype=torch.float64))
    torch.testing.assert_close(found[..., :5], image[..., 2:])
    assert found[..., 5:].abs().max() == 0
    half = warp_along_rows(image, torch.full((1, 1, 4, 7), 0.5, dtype=torch.float64))
    torch.testing.assert_close(half[..., :-1], (image[..., :-1] + image[..., 1:]) / 2)


@pytest.mark.parametrize("cls", [IFAN, IFANDual])
def test_training_outputs_and_reblurring_train_each_other(cls):
    torch.manual_seed(0)
    model = cls(**cls.tiny_arguments).double()
    filters = filter_channels(model.iterations, model.channels, model.kernel_size)
    reblur = FilterReblur(filters=filters, iterations=2).double()
    pair = batch_of(20, 27)
    prediction = model.training_outputs(pair)
    assert prediction["restored"].shape == pair["gt"].shape
    assert prediction["warped_right"].shape == prediction["small_left"].shape == (2, 3, 3, 4)
    reblurred = reblur(pair["gt"], ReblurGuidance(pair, prediction, model))["center"]
    assert reblurred.shape == (2, 3, 3, 4)
    reblurred.square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in reblur.parameters())
    assert model.filters[-1].weight.grad.abs().sum() > 0
    assert model.encoder[0][0][0].weight.grad is None, "reblurring does not train the image's encoder"


def test_reblurring_by_averages_or_every_eighth_pixel():
    sharp = random(1, 3, 16, 24)
    nearest, area = (FilterReblur(filters=4, iterations=1, subsample=how).shrink(sharp)
                     for how in ("nearest", "area"))
    assert torch.equal(nearest, sharp[..., ::8, ::8])
    assert area[0, 0, 0, 0].item() == pytest.approx(sharp[0, 0, :8, :8].mean().item())


def test_reblurring_needs_filters(small):
    pair = batch_of(16, 16)
    with pytest.raises(OptionError, match="predicts no `filters`"):
        FilterReblur(filters=8)(pair["gt"], ReblurGuidance(pair, {}, small))
    with pytest.raises(OptionError, match="filters of 4 channels"):
        FilterReblur(filters=8)(pair["gt"], ReblurGuidance(pair, {"filters": random(2, 4, 2, 2)}, small))


@pytest.mark.parametrize("arguments", [{"width": 0}, {"iterations": 0}, {"kernel_size": 2}])
def test_impossible_settings_are_reported(arguments):
    with pytest.raises(OptionError, match="IFAN: expected positive width"):
        IFAN(**arguments)


@pytest.mark.parametrize("network", ["ifan", "ifan_dual"])
def test_official_files_are_recognised_and_converted(network):
    known = official_format(network)
    model = known.build({"width": 4, "N": 3, "Fs": 3}, network)
    official = {f"Network.{k}": v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    official["reblurNet.RBF.0.0.weight"] = torch.zeros(1).numpy()
    found, settings = known.recognise({k: v.shape for k, v in official.items()})
    assert (found, settings) == (network, {"width": 4, "N": 3, "Fs": 3})
    assert "Network.F.3.weight" in official and "Network.kconv4_3.0.bias" in official
    other = known.build(settings, found)
    known.load(other, official, found)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_other_networks_are_not_recognised():
    assert official_format("ifan").recognise({"head.0.weight": (64, 6, 3, 3)}) is None
