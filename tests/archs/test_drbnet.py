"""DRBNet beyond what every restorer is asked: its filters, its pyramid, its clip, its files."""
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.drbnet_arch import DRBNet, DRBNetDual
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.layers.dynamic_filter import dynamic_filter
from k3dn_plugin.zoo.formats.base import official_format

SETTINGS = {"in_channels_encoder": 3, "widths": [4, 8, 16, 32], "dynamic_kernel_width": 5}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=DRBNet, **arguments):
    torch.manual_seed(0)
    return cls(**{**cls.tiny_arguments, **arguments}).double().eval()


@pytest.mark.parametrize("cls, parameters, macs", [(DRBNet, 11_689_616, 1_272_654_028_800),
                                                   (DRBNetDual, 11_690_480, 1_274_279_731_200)])
def test_size_and_cost_of_the_published_networks(cls, parameters, macs):
    with torch.device("meta"), torch.no_grad():
        model = cls()
        with FlopCounterMode(display=False) as counter:
            model.restore(torch.empty(1, 3 * len(cls.card.views), 1120, 1680))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 138
    assert counter.get_total_flops() == 2 * macs, "convolutions only: the filters are no convolutions"


def test_dynamic_filter_pixel_by_pixel():
    height, width, k = 4, 6, 5
    image, kernels = random(2, 3, height, width), random(2, k * k, height, width, seed=1) - 0.5
    found = dynamic_filter(image, kernels)
    for y in range(height):
        for x in range(width):
            wanted = sum(kernels[:, i * k + j, y, x, None]
                         * image[:, :, min(max(y + i - 2, 0), height - 1), min(max(x + j - 2, 0), width - 1)]
                         for i in range(k) for j in range(k))
            torch.testing.assert_close(found[:, :, y, x], wanted)


def test_dynamic_filter_gradcheck():
    inputs = [(random(1, c, 3, 4, seed=c) - 0.5).requires_grad_() for c in (2, 9)]
    torch.autograd.gradcheck(dynamic_filter, inputs)


@pytest.mark.parametrize("cls", [DRBNet, DRBNetDual])
def test_without_filters_and_residuals_the_coarse_image_remains(cls):
    model = build(cls)
    with torch.no_grad():
        for step in model.steps:
            for head in (step.kernels[-1], step.residual[-1][0]):
                head.weight.zero_()
                head.bias.zero_()
        center = random(1, 3, 16, 24)
        found = model(random(1, 6, 16, 24, seed=1), center)
    means = center.unflatten(3, (3, 8)).unflatten(2, (2, 8)).mean((3, 5))
    torch.testing.assert_close(found, means.repeat_interleave(8, 2).repeat_interleave(8, 3))


def test_encoder_of_the_dual_network_sees_right_then_left():
    seen = []
    model = build(DRBNetDual)
    model.encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pair, center = random(1, 6, 16, 16), random(1, 3, 16, 16, seed=1)
    with torch.inference_mode():
        model(pair, center)
    torch.testing.assert_close(seen[0], torch.cat([pair[:, 3:], pair[:, :3]], 1) * 2 - 1)


def test_clip_as_published_or_in_evaluation_only():
    pair = random(1, 6, 16, 16)
    for published in (True, False):
        model = build(clip_in_training=published)
        with torch.no_grad():
            model.steps[-1].residual[-1][0].bias += 9
            assert model(pair).max() == 1
            assert (model.train()(pair).max() == 1) == published


def test_image_stays_in_float32_under_autocast():
    model = DRBNet(**DRBNet.tiny_arguments).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.rand(1, 6, 16, 16)).dtype == torch.float32


@pytest.mark.parametrize("arguments", [{"width": 0}, {"kernel_size": 4}])
def test_impossible_settings_are_reported(arguments):
    with pytest.raises(OptionError, match="DRBNet: expected a positive width and an odd kernel_size"):
        DRBNet(**arguments)


@pytest.mark.parametrize("network, views", [("drbnet", 3), ("drbnet_dual", 6)])
def test_official_files_are_recognised_and_converted(network, views):
    known, settings = official_format(network), {**SETTINGS, "in_channels_encoder": views}
    model = known.build(settings, network).double()
    official = {k: v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    assert {"conv1_1.0.weight", "conv4_4.0.0.weight", "conv4_4.1.stem.0.2.bias", "upconv3_u.0.weight",
            "upconv3_1.stem.0.0.weight", "img_d8_feature.2.0.bias", "upconv3_kernel.1.0.weight",
            "upconv3_kernel.2.weight", "upconv3_res.2.0.weight"} <= set(official)
    found, read = known.recognise({k: v.shape for k, v in official.items()})
    assert (found, read) == (network, settings)
    other = known.build(read, found).double()
    known.load(other, official, found)
    pair = random(1, 6, 16, 24)
    with torch.inference_mode():
        assert torch.equal(other(pair), model(pair))


def test_what_is_not_published_is_reported():
    known = official_format("drbnet")
    assert known.recognise({"conv1_1.0.weight": (32, 3, 3, 3), "kconv1_1.0.weight": (32, 3, 3, 3)}) is None
    with pytest.raises(CheckpointError, match="twice as wide"):
        known.build({**SETTINGS, "widths": [4, 8, 16, 16]}, "drbnet")
    with pytest.raises(CheckpointError, match="drbnet_dual takes|drbnet_dual two views"):
        known.build({**SETTINGS, "in_channels_encoder": 6}, "drbnet")
