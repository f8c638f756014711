"""SFNet beyond what every restorer is asked: splits by their definition, pooling, the dual form, its files."""
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.sfnet_arch import Pooling, QuadrantSplit, SFNet, SFNetDual
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.frequency_split import FrequencySplit, VectorNorm
from k3dn_plugin.layers.image_filter import filter_images
from k3dn_plugin.zoo.formats.base import official_format

TINY = SFNet.tiny_arguments


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=SFNet, **arguments):
    torch.manual_seed(0)
    model = cls(**{**TINY, **arguments}).double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.05 * (random(*parameter.shape, seed=number) - 0.5)
    return model


@pytest.mark.parametrize("cls, trained, macs", [(SFNet, 13_271_209, 3_479_895_118_336),
                                                (SFNetDual, 13_273_369, 3_481_825_639_936)])
def test_size_and_cost_are_those_of_the_sheet(cls, trained, macs):
    with torch.device("meta"):
        model = cls().eval()
    assert sum(p.numel() for p in model.parameters()) == trained
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 896
    assert len(model.state_dict()) == 1004
    views = torch.empty(1, 3 * len(cls.card.views), 1120, 1680, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.scales(views)
    assert counter.get_total_flops() // 2 == macs


def test_predicted_kernels_by_their_definition():
    image, kernels = random(2, 4, 7, 9), random(2, 2, 3, 3, seed=1)
    found = filter_images(F.pad(image, (1,) * 4, mode="reflect"), kernels)
    # Channel 1 shares the first kernel; the row before the first is the second.
    for (channel, group), row, column in (((1, 0), 0, 4), ((2, 1), 3, 0)):
        rows, columns = [abs(row - 1), row, row + 1], [abs(column - 1), column, column + 1]
        wanted = (image[1, channel][rows][:, columns] * kernels[1, group]).sum()
        torch.testing.assert_close(found[1, channel, row, column], wanted)


def test_frequency_split_by_its_definition():
    torch.manual_seed(0)
    split = FrequencySplit(16, 5, groups=8).double().eval()
    x = random(1, 16, 6, 8)
    mean = x.mean((2, 3), keepdim=True)
    taps = split.norm(split.predict(mean)).view(1, 8, 25).softmax(-1)
    torch.testing.assert_close(split.kernels(mean).flatten(-2), taps)
    low = filter_images(F.pad(x, (2,) * 4, mode="reflect"), split.kernels(mean))
    both = torch.cat([split.high(split.squeeze(mean)), split.low(split.squeeze(mean))], 1).softmax(1)
    torch.testing.assert_close(both.sum(), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(split(x), split.out((x - low) * both[:, :16] + low * both[:, 16:]))


def test_quadrants_have_weights_of_their_own():
    split, x = QuadrantSplit(3).double(), random(2, 3, 4, 6)
    with torch.no_grad():
        split.high.copy_(random(12, seed=1))
        split.low.copy_(random(12, seed=2))
    part = x[1, 2, 2:, :3]  # channel 2, bottom left: index 4 * 2 + 2
    wanted = split.high[10] * (part - part.mean()) + split.low[10] * part.mean()
    torch.testing.assert_close(split(x, Pooling())[1, 2, 2:, :3], wanted)


def test_batch_norm_of_one_vector_uses_the_running_statistics():
    norm = VectorNorm(5).train()
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    before, x = norm.running_mean.clone(), torch.rand(1, 5, 1, 1)
    torch.testing.assert_close(norm(x), norm.eval()(x))
    assert torch.equal(norm.running_mean, before)
    norm.train()(torch.rand(3, 5, 1, 1))
    assert not torch.equal(norm.running_mean, before)


def test_local_pooling_is_of_evaluation_alone_and_a_share_of_the_map():
    whole, local = build(), build(local_pool=80)
    image = random(1, 3, 64, 96)
    with torch.inference_mode():
        assert (whole.restore(image) - local.restore(image)).abs().max() > 1e-4
        # A window as large as the map is the map.
        torch.testing.assert_close(build(local_pool=256).restore(image), whole.restore(image))
        crops = random(2, 3, 32, 32)
        torch.testing.assert_close(local.train().scales(crops), whole.train().scales(crops))
    assert local.size_rule.minimum == (32, 32)
    with pytest.raises(SizeError, match="at least one pixel"), torch.inference_mode():
        local.eval().restore(image[..., :24, :])


def test_the_dual_network_without_its_right_view_is_the_single_one():
    single, dual = build(), build(SFNetDual)
    state = dict(single.state_dict())
    for key in ("extract.0.weight", "half_input.body.0.weight", "quarter_input.body.0.weight"):
        state[key] = torch.cat([state[key], torch.zeros_like(state[key])], 1)
    dual.load_state_dict(state)
    image = random(1, 3, 16, 24)
    with torch.inference_mode():
        for one, other in zip(single.scales(image), dual.scales(torch.cat([image, image], 1))):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_training_gives_three_scales():
    batch = {"lq": random(2, 6, 20, 28), "gt": random(2, 3, 20, 28)}
    prediction = build(SFNetDual).train().training_outputs(batch)
    assert prediction["restored"].shape == (2, 3, 20, 28)
    assert [s.shape for s in prediction["scales"]] == [(2, 3, 12, 16), (2, 3, 6, 8)]


@pytest.mark.parametrize("arguments, message", [
    ({"num_res": 0}, "num_res"), ({"base_channels": 24}, "multiple of 16"), ({"local_pool": 0}, "local_pool"),
    ({"local_pool": 300}, "1 to local_pool_crop")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        SFNet(**arguments)


@pytest.mark.parametrize("cls, network, blocks", [(SFNet, "sfnet", 1), (SFNet, "sfnet", 3),
                                                  (SFNetDual, "sfnet_dual", 2)])
def test_official_files_there_and_back(cls, network, blocks):
    model, known = build(cls, num_res=blocks), official_format(network)
    official = known.to_official(model.state_dict())
    assert {"Encoder.0.layers.0.global_ap.fscale_d", "SCM1.main.4.bias", "FAM2.merge.main.0.weight",
            f"Encoder.2.layers.{blocks - 1}.dyna_2.modulate.fcs.1.bias"} <= set(official)
    shapes = {key: tuple(value.shape) for key, value in official.items()}
    found, settings = known.recognise(shapes)
    assert (found, settings["num_res"], settings["base_channel"]) == (network, blocks, 16)
    other = known.build(settings, found).double()
    known.load(other, {key: value.numpy() for key, value in official.items()}, found)
    image = random(1, shapes["feat_extract.0.main.0.weight"][1], 16, 24)
    with torch.inference_mode():
        assert torch.equal(other.restore(image), model.restore(image))


def test_relatives_are_not_taken_for_sfnet():
    known = official_format("sfnet")
    shapes = {key: tuple(value.shape) for key, value in known.to_official(build().state_dict()).items()}
    # Its successor has other layers inside a stage; networks of its form without the splits have neither key.
    successor = {key.replace(".layers.", ".layers.layers."): shape for key, shape in shapes.items()}
    assert known.recognise({**successor, "Encoder.0.layers.down.weight": (1,)}) is None
    assert known.recognise({key: shape for key, shape in shapes.items() if "dyna" not in key}) is None
    assert known.recognise({key: shape for key, shape in shapes.items() if "global_ap" not in key}) is None
