"""DDDNet beyond what every restorer is asked: its cost volume, batch norms, dead parts and files."""
import pytest
import torch

from k3dn_plugin.archs.dddnet_arch import ChannelAttention, DDDNet, ImageNetwork, SwitchableNorm
from k3dn_plugin.errors import OptionError
from k3dn_plugin.zoo.formats.base import official_format

TINY = DDDNet.tiny_arguments


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    """A tiny network whose norms have statistics of their own."""
    torch.manual_seed(0)
    model = DDDNet(**{**TINY, **arguments}).double().eval()
    for i, norm in enumerate(m for m in model.modules() if isinstance(m, SwitchableNorm)):
        norm.running_mean += 0.1 * random(*norm.running_mean.shape, seed=i)
        norm.running_var += random(*norm.running_var.shape, seed=i)
    return model


def test_parameters_of_the_published_networks():
    with torch.device("meta"):
        model = DDDNet()
    count = [sum(p.numel() for p in part.parameters()) for part in (model, model.estd, model.esti)]
    assert count == [10_964_814, 4_561_338, 6_403_476]
    assert sum(p.numel() for p in model.estd.parameters() if p.requires_grad) == 1_053_656
    assert len(model.state_dict()) == 413


def test_dead_parts_are_frozen_and_change_nothing():
    model, views = build(), random(1, 6, 64, 72)
    with torch.inference_mode():
        before = model.estimate(views)
    dead = {n.rpartition(".")[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert {"estd.features.start.0.conv", "estd.matching.deconv3a.conv1.conv", "estd.matching.conv2a.0.bn",
            "estd.feature.end.1.bn", "estd.matching.end.1.bn", "esti.conv.conv"} <= dead
    with torch.no_grad():
        for p in model.parameters():
            if not p.requires_grad:
                p += 1
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(before, model.estimate(views)))


def test_disparity_is_an_expectation_over_the_levels():
    model = build()
    with torch.inference_mode():
        disparity = model.estd(random(1, 3, 64, 68), random(1, 3, 64, 68, seed=1))
    assert disparity.shape == (1, 64, 68)
    assert 0 <= disparity.min() and disparity.max() <= 11


def test_batch_statistics_are_those_of_training_and_leave_the_running_ones():
    own, trained = build(batch_statistics=True), build()
    views = [random(1, 3, 64, 64, seed=i) for i in range(2)]
    kept = {k: v.clone() for k, v in own.state_dict().items()}
    with torch.no_grad():
        found = own.estd(*views)
        running = trained.estd(*views)
        torch.testing.assert_close(found, trained.estd.train()(*views))
    assert (found - running).abs().max() > 1e-3
    assert all(torch.equal(v, kept[k]) for k, v in own.state_dict().items())


def test_patches_do_not_see_each_other_before_they_are_joined():
    """Level 3 works on quarters: one quarter's features do not change with another's pixels."""
    network = ImageNetwork(channels=4).double().eval()
    whole = random(1, 7, 32, 48)
    changed = whole.clone()
    changed[..., 15, 23] += 1
    with torch.no_grad():
        one, other = (network.encoder3(x[..., 16:, 24:]) for x in (whole, changed))
    assert torch.equal(one, other)


def test_attention_takes_the_least_similar_channel():
    attention = ChannelAttention().double()
    with torch.no_grad():
        attention.gamma.fill_(1.0)
        x = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
        x[0, 0], x[0, 1], x[0, 2] = 1.0, 2.0, -1.0
        found = attention(x) - x
    # Channel 2 is the least similar to 0 and 1; of itself, channel 1 is.
    torch.testing.assert_close(found, x[:, [2, 2, 1]])


def test_training_outputs_are_cropped_alike():
    batch = {"lq": random(2, 6, 66, 70), "gt": random(2, 3, 66, 70)}
    prediction = build().train().training_outputs(batch)
    assert prediction["restored"].shape == (2, 3, 66, 70)
    assert prediction["blur_disparity"].shape == prediction["disparity_map"].shape == (2, 1, 66, 70)


@pytest.mark.parametrize("arguments", [{"depth_channels": 6}, {"max_disparity": 10}, {"image_channels": 0}])
def test_impossible_settings_are_reported(arguments):
    with pytest.raises(OptionError, match="DDDNet: expected"):
        DDDNet(**arguments)


def test_official_files_are_recognised_and_loaded():
    known, model = official_format("dddnet"), build()
    parts = known.to_official(model.state_dict())
    for part, state in parts.items():
        network, settings = known.recognise({k: tuple(v.shape) for k, v in state.items()})
        assert network == f"dddnet_{part}"
        other = known.build(settings, network).double()
        known.load(other, {k: v.numpy() for k, v in state.items()}, network)
        wanted = getattr(model, part).state_dict()
        assert all(torch.equal(v, wanted[k]) for k, v in other.state_dict().items())
    both = {f"{part}.{k}": v for part, state in parts.items() for k, v in state.items()}
    network, settings = known.recognise({k: tuple(v.shape) for k, v in both.items()})
    assert network == "dddnet"
    known.load(known.build(settings, network).double(), {k: v.numpy() for k, v in both.items()}, network)
    assert known.recognise({"head.0.weight": (64, 6, 3, 3)}) is None
