"""KPAC beyond what every restorer is asked: its shared kernel, its attentions, its padding, its files."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.archs.kpac_arch import KPAC, Down, KPACDual
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.evaluation.cost import count_macs, count_parameters
from k3dn_plugin.layers.parallel_atrous import ParallelAtrous
from k3dn_plugin.zoo.formats.base import official_format

SETTINGS = {"levels": 2, "in_channels": 3, "num_blocks": 2, "width": 6, "rates": [1, 2, 3, 4, 5]}
THREE_LEVELS = {**SETTINGS, "levels": 3}
DUAL = {**THREE_LEVELS, "in_channels": 6}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=KPAC, **arguments):
    torch.manual_seed(0)
    return cls(**{"width": 6, **arguments}).double().eval()


@pytest.mark.parametrize("cls, arguments, parameters, macs, tensors", [
    (KPAC, {}, 1_578_277, 391_331_408_256, 58),
    (KPAC, {"levels": 3}, 2_057_893, 230_801_763_456, 66),
    (KPACDual, {}, 2_061_493, 237_575_523_456, 66)])
def test_size_and_cost_of_the_published_networks(cls, arguments, parameters, macs, tensors):
    with torch.device("meta"):
        model = cls(**arguments)
    assert count_parameters(model) == parameters
    assert count_macs(model) == macs
    assert len(model.state_dict()) == tensors


def test_block_branch_by_branch():
    torch.manual_seed(0)
    block, x = ParallelAtrous(12, (1, 3)).double(), random(2, 12, 16, 20) - 0.5
    with torch.no_grad():
        maps = block.scale_attention(x)
        numbers = block.shape_attention(x)
        total = block.join.bias[:, None, None].expand(2, 12, 16, 20)
        for j, rate in enumerate((1, 3)):
            # The kernel with zeros between its taps.
            spread = torch.zeros(6, 12, 4 * rate + 1, 4 * rate + 1, dtype=torch.float64)
            spread[..., ::rate, ::rate] = block.shared.weight
            branch = F.conv2d(x, spread, padding=2 * rate)
            branch = torch.maximum(0.2 * branch, branch) * maps[:, j, None] * numbers
            total = total + F.conv2d(branch, block.join.weight[:, 6 * j:6 * (j + 1)], padding=1)
        torch.testing.assert_close(block(x), torch.maximum(0.2 * total, total))
    assert maps.shape == (2, 2, 16, 20) and numbers.shape == (2, 6, 1, 1)


def test_channel_weights_come_from_the_mean_alone():
    torch.manual_seed(0)
    block, x = ParallelAtrous(12).double(), random(1, 12, 8, 8)
    with torch.no_grad():
        shuffled = x.flatten(2)[..., torch.randperm(64)].view_as(x)
        torch.testing.assert_close(block.shape_attention(x), block.shape_attention(shuffled))


def test_down_starts_at_the_first_pixel():
    down = Down(1, 1).double()
    with torch.no_grad():
        down[0].weight.fill_(1.0)
        down[0].bias.zero_()
        found = down(torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4))
    assert found[0, 0].tolist() == [[45, 39], [66, 50]]


@pytest.mark.parametrize("cls", [KPAC, KPACDual])
def test_without_a_residual_the_center_view_remains(cls):
    model, pair, center = build(cls), random(1, 6, 21, 30), random(1, 3, 21, 30, seed=1)
    with torch.no_grad():
        model.out.weight.zero_()
        torch.testing.assert_close(model(pair, center), center)


def test_encoder_of_the_dual_network_sees_left_then_right():
    seen, model = [], build(KPACDual)
    model.encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pair, center = random(1, 6, 16, 16), random(1, 3, 16, 16, seed=1)
    with torch.inference_mode():
        model(pair, center)
    torch.testing.assert_close(seen[0], pair * 2 - 1)


def test_sizes_follow_the_levels():
    assert build().size_rule.multiple == (4, 4) and build(levels=3).size_rule.multiple == (8, 8)
    assert KPAC.card.size_rule.multiple == (4, 4)
    with torch.inference_mode():
        for levels, size in ((2, (12, 20)), (3, (24, 8))):
            views = random(1, 3, *size)
            assert build(levels=levels).restore(views).shape == (1, 3, *size)


@pytest.mark.parametrize("arguments, message", [
    ({"levels": 4}, "2 or 3 levels"), ({"blocks": 0}, "at least one block"), ({"width": 0}, "positive width"),
    ({"rates": []}, "positive rates"), ({"rates": [0]}, "positive rates")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        KPAC(**arguments)


@pytest.mark.parametrize("network, settings",
                         [("kpac", SETTINGS), ("kpac", THREE_LEVELS), ("kpac_dual", DUAL)])
@pytest.mark.parametrize("named", [True, False])
def test_official_files_are_recognised_and_converted(network, settings, named):
    known = official_format(network)
    model = known.build(settings, network).double()
    official = known.to_official(model.state_dict())
    assert {"deblur_net/deblur/c0/W_conv2d:0", "deblur_net/dc1/1/filter:0", "deblur_net/sca_dc4/0/b:0",
            "deblur_net/cf/0/b_conv2d:0", "deblur_net/deblur/d2/W_deconv2d:0"} <= set(official)
    assert official["deblur_net/deblur/d2/W_deconv2d:0"].shape == (4, 4, 6, 6)
    if named:  # as np.savez keeps them, order does not count
        official = dict(reversed(official.items()))
    else:  # a list without names
        official = {str(i): value for i, value in enumerate(official.values())}
    assert known.recognise({key: value.shape for key, value in official.items()}) == (network, settings)
    other = known.build(settings, network).double()
    known.load(other, official, network)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_what_is_not_published_is_reported():
    known = official_format("kpac")
    official = known.to_official(build().state_dict())
    arrays = {str(i): value for i, value in enumerate(official.values())}
    assert known.recognise({k: v.shape for k, v in list(arrays.items())[:-1]}) is None
    assert known.recognise({"conv1_1.0.weight": (32, 3, 3, 3)}) is None
    assert known.recognise({}) is None
    with pytest.raises(CheckpointError, match=r"58 \(2-level\).*found 58 in another order, beginning with"):
        known.convert(dict(reversed(arrays.items())), "kpac")
    with pytest.raises(CheckpointError, match="1 keys missing"):
        known.load(build(), {k: v for k, v in official.items() if "/c3/b_" not in k}, "kpac")
    with pytest.raises(CheckpointError, match="unexpected .*generator"):
        known.load(build(), {**official, "generator/W:0": np.zeros(3)}, "kpac")
    with pytest.raises(CheckpointError, match="kernel_size 3: only 5"):
        known.build({**SETTINGS, "kernel_size": 3}, "kpac")
    with pytest.raises(CheckpointError, match="levels 2: only 3"):
        known.build({**DUAL, "levels": 2}, "kpac_dual")
