"""LaKDNet beyond what every restorer is asked: size and cost, its block, its clip, its views, its files."""
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.lakdnet_arch import LaKDNet, LaKDNetDual
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.layers.large_kernel import LargeKernelBlock
from k3dn_plugin.zoo import load_official
from k3dn_plugin.zoo.formats.base import official_format

TINY = LaKDNet.tiny_arguments
PUBLISHED = {"inp_channels": 9, "out_channels": 3, "dim": 48, "num_blocks": [8, 12, 12, 16],
             "mix_kernel_size": [9, 9, 9, 9], "ffn_expansion_factor": 2.3, "bias": False,
             "LayerNorm_type": "WithBias", "dual_pixel_task": True}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=LaKDNet, **arguments):
    torch.manual_seed(0)
    return cls(**{**TINY, **arguments}).double().eval()


@pytest.mark.parametrize("cls, arguments, parameters, macs", [
    (LaKDNet, {}, 17_727_632, 2_462_028_441_600), (LaKDNet, {"width": 48}, 38_412_576, None),
    (LaKDNetDual, {}, 17_729_360, None), (LaKDNetDual, {"width": 48}, 38_415_168, 5_134_586_284_800),
    (LaKDNet, {"kernel_sizes": [7] * 4}, 17_121_424, None)])
def test_size_and_cost_of_the_published_networks(cls, arguments, parameters, macs):
    """Counting takes seconds, so one network of each number of views is counted."""
    with torch.device("meta"):
        model = cls(**arguments)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 1050
    if macs is not None:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.restore(torch.empty(1, 3 * len(cls.card.views), 1120, 1680))
        assert counter.get_total_flops() == 2 * macs


def test_block_written_out():
    torch.manual_seed(0)
    block = LargeKernelBlock(6, 5).double()
    x = random(2, 6, 7, 9)
    with torch.no_grad():
        z = block.norm1(x)
        m = block.mixer
        b1 = z + F.gelu(m.point1(F.gelu(m.depth1(z)) + z))
        b2 = z + F.gelu(m.point2(F.gelu(m.depth2(b1)) + z))
        torch.testing.assert_close(block(x), x + block.ffn(block.norm2(x + b2)))
        assert m.depth1.bias is None and m.point1.bias is not None


def test_the_clip_waits_for_evaluation_where_asked():
    pair = 3 * random(1, 6, 16, 24)
    published, free = build(), build(clip_in_training=False)
    for model in (published, free):
        assert model(pair).max() == 1
    assert published.train()(pair).max() == 1 and free.train()(pair).max() > 1


def test_the_center_is_restored():
    single, dual = build(), build(LaKDNetDual)
    pair, center = random(1, 6, 16, 24), random(1, 3, 16, 24, seed=1)
    with torch.inference_mode():
        assert torch.equal(single(pair, center), single(random(1, 6, 16, 24, seed=2), center))
        for model in (single, dual):
            model.out.weight.zero_()
            torch.testing.assert_close(model(pair, center), center)
    assert dual.card.views == ("left", "right", "center")


def test_levels_decide_the_size_rule():
    model = build(blocks=[1, 1, 1], kernel_sizes=[3, 3, 3])
    assert model.size_rule.multiple == (4, 4)


@pytest.mark.parametrize("arguments, message", [
    ({"blocks": [1, 1, 1]}, "the same two levels or more"), ({"blocks": [1, 1, 0, 1]}, "at least 1"),
    ({"width": 5}, "even"), ({"kernel_sizes": [9, 8, 9, 9]}, "odd numbers"), ({"expansion": 0.1}, "expansion")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        LaKDNet(**{**TINY, **arguments})


@pytest.mark.parametrize("changes", [
    {}, {"inp_channels": 3, "dual_pixel_task": False}, {"mix_kernel_size": [7, 5, 3, 9]},
    {"bias": True, "LayerNorm_type": "BiasFree", "num_blocks": [1, 2, 1, 3], "ffn_expansion_factor": 2.66}])
def test_official_files_are_recognised_and_converted(changes):
    known = official_format("lakdnet")
    settings = {**PUBLISHED, "dim": 8, "num_blocks": [1, 1, 1, 1], **changes}
    network = "lakdnet_dual" if settings["dual_pixel_task"] else "lakdnet"
    model = known.build(settings, network).double()
    official = {k: v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    assert {"embed.weight", "down2_3.body.0.weight", "up2_1.body.0.weight", "encoder_level3.0.norm1.body.weight",
            "decoder_level1.0.ffn.dwconv.weight", "reduce_chan_level2.weight",
            "latent.0.mixer.dense_point_2.bias"} <= set(official)
    found, read = known.recognise({k: v.shape for k, v in official.items()})
    assert found == network and read == settings
    other = known.build(read, found).double()
    known.load(other, official, found)
    views = random(1, settings["inp_channels"], 16, 24)
    with torch.inference_mode():
        assert torch.equal(other.restore(views), model.restore(views))


def test_networks_of_other_tasks_are_reported():
    known = official_format("lakdnet")
    assert known.recognise({"patch_embed.proj.weight": (48, 3, 3, 3)}) is None
    with pytest.raises(CheckpointError, match="6 channels in"):
        known.build({**PUBLISHED, "inp_channels": 6}, "lakdnet_dual")


@pytest.mark.parametrize("cls", [LaKDNet, LaKDNetDual])
def test_a_bare_state_dict_is_loaded(cls, tmp_path):
    model = build(cls).float()
    torch.save(official_format("lakdnet").to_official(model.state_dict()), tmp_path / "train_on_dpdd.pth")
    found = load_official(tmp_path / "train_on_dpdd.pth").restorer
    assert type(found) is cls
    pair = random(1, 6, 16, 24).float()
    with torch.inference_mode():
        assert torch.equal(found(pair), model(pair))
