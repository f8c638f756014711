"""Restormer beyond what every restorer is asked: its norms and attention, its two forms, its files."""
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.restormer_arch import Restormer
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.layers.channel_attention import ChannelAttention
from k3dn_plugin.layers.gated_feed_forward import GatedFeedForward
from k3dn_plugin.layers.layer_norm import ChannelNorm
from k3dn_plugin.zoo.formats.base import official_format

TINY = Restormer.tiny_arguments
PUBLISHED = {"inp_channels": 6, "out_channels": 3, "dim": 48, "num_blocks": [4, 6, 6, 8],
             "num_refinement_blocks": 4, "heads": [1, 2, 4, 8], "ffn_expansion_factor": 2.66, "bias": False,
             "LayerNorm_type": "WithBias", "dual_pixel_task": True}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    torch.manual_seed(0)
    return Restormer(**{**TINY, **arguments}).double().eval()


@pytest.mark.parametrize("dual, parameters, tensors, macs", [
    (True, 26_132_548, 495, 4_457_917_296_000), (False, 26_126_644, 494, 4_446_808_329_600)])
def test_size_and_cost_of_the_published_networks(dual, parameters, tensors, macs):
    with torch.device("meta"), torch.no_grad():
        model = Restormer(dual_pixel=dual)
        with FlopCounterMode(display=False) as counter:
            model.restore(torch.empty(1, 6 if dual else 3, 1120, 1680))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("bias", [True, False])
def test_norm_over_channels(bias):
    norm = ChannelNorm(5, bias=bias).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_()
    x = random(2, 5, 3, 4)
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    weight = norm.weight[:, None, None]
    wanted = (x - mean if bias else x) / (variance + 1e-5).sqrt() * weight
    if bias:
        wanted = wanted + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), wanted)


def test_attention_by_normalised_rows():
    torch.manual_seed(0)
    layer = ChannelAttention(6, 2).double()
    x = random(2, 6, 3, 5)
    with torch.no_grad():
        layer.temperature.copy_(torch.tensor([2.0, 0.5]).view(2, 1, 1))
        found = layer(x)
        q, k, v = layer.qkv_dwconv(layer.qkv(x)).chunk(3, 1)
        heads = []
        for head, temperature in enumerate((2.0, 0.5)):
            rows = slice(3 * head, 3 * head + 3)
            qh, kh, vh = (t[:, rows].flatten(2) for t in (q, k, v))
            scores = F.normalize(qh, dim=-1) @ F.normalize(kh, dim=-1).transpose(1, 2) * temperature
            heads.append(scores.softmax(-1) @ vh)
        wanted = layer.project_out(torch.cat(heads, 1).view(2, 6, 3, 5))
    torch.testing.assert_close(found, wanted)


def test_constant_zero_features_give_finite_gradients():
    layer = ChannelAttention(4, 1).double()
    x = torch.zeros(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in layer.parameters())


def test_norms_and_softmax_stay_in_float32_under_autocast():
    layer, norm = ChannelAttention(4, 2), ChannelNorm(4)
    rows = torch.rand(1, 2, 2, 50, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.attention(rows, rows).dtype == torch.float32
        large = (torch.rand(1, 4, 5, 5) + 200).bfloat16()
        half = norm(large)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), norm(large.float()), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("width, hidden", [(48, 127), (96, 255), (192, 510), (384, 1021)])
def test_hidden_widths_are_truncated(width, hidden):
    with torch.device("meta"):
        assert GatedFeedForward(width, 2.66).project_out.in_channels == hidden


def test_single_image_network_sees_the_center_and_adds_it():
    model = build(dual_pixel=False)
    pair, center = random(1, 6, 16, 24), random(1, 3, 16, 24, seed=1)
    with torch.inference_mode():
        assert torch.equal(model(pair, center), model(random(1, 6, 16, 24, seed=2), center))
        torch.testing.assert_close(model(pair), model(pair, (pair[:, :3] + pair[:, 3:]) / 2))
        model.out.weight.zero_()
        torch.testing.assert_close(model(pair, center), center)
    assert model.card.views == ("center",) and build().card.views == ("left", "right")


def test_dual_pixel_network_adds_no_image():
    model = build()
    with torch.no_grad():
        model.out.weight.zero_()
        assert model(random(1, 6, 16, 16)).abs().max() == 0


def test_levels_decide_the_size_rule():
    model = build(blocks=[1, 1, 1], heads=[1, 1, 1])
    assert model.size_rule.multiple == (4, 4)
    with torch.inference_mode():
        assert model(random(1, 6, 13, 22)).shape == (1, 3, 13, 22)


@pytest.mark.parametrize("arguments, message", [
    ({"blocks": [1, 1, 1]}, "the same two levels or more"), ({"heads": [1, 1, 0, 1]}, "at least 1"),
    ({"width": 5}, "even"), ({"heads": [1, 3, 1, 1]}, r"heads\[1\]: expected a divisor of the level's 8"),
    ({"expansion": 0.1}, "expansion"), ({"refinement_blocks": -1}, "refinement_blocks")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        Restormer(**{**TINY, **arguments})


@pytest.mark.parametrize("changes", [
    {}, {"inp_channels": 3, "dual_pixel_task": False}, {"bias": True, "ffn_expansion_factor": 4.0},
    {"LayerNorm_type": "BiasFree", "num_blocks": [1, 2, 1, 3], "num_refinement_blocks": 2}])
def test_official_files_are_recognised_and_converted(changes):
    known = official_format("restormer")
    settings = {**PUBLISHED, "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1,
                "heads": [1, 2, 2, 4], **changes}
    model = known.build(settings, "restormer").double()
    official = {k: v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    assert {"patch_embed.proj.weight", "down2_3.body.0.weight", "up2_1.body.0.weight",
            "encoder_level3.0.norm1.body.weight", "decoder_level1.0.ffn.dwconv.weight",
            "reduce_chan_level2.weight", "latent.0.attn.temperature"} <= set(official)
    found, read = known.recognise({k: v.shape for k, v in official.items()})
    assert found == "restormer" and read == settings
    other = known.build(read, found).double()
    known.load(other, official, found)
    views = random(1, settings["inp_channels"], 16, 24)
    with torch.inference_mode():
        assert torch.equal(other.restore(views), model.restore(views))


def test_other_expansions_are_found_by_their_hidden_width():
    known = official_format("restormer")
    settings = {**PUBLISHED, "dim": 8, "num_blocks": [1, 1, 1, 1], "ffn_expansion_factor": 3.1}
    model = known.build(settings, "restormer")
    shapes = {k: v.shape for k, v in known.to_official(model.state_dict()).items()}
    model = known.build(known.recognise(shapes)[1], "restormer")
    assert {k: v.shape for k, v in known.to_official(model.state_dict()).items()} == shapes


def test_networks_of_other_tasks_are_reported():
    known = official_format("restormer")
    assert known.recognise({"head.0.weight": (64, 6, 3, 3)}) is None
    grey = {**PUBLISHED, "inp_channels": 1, "out_channels": 1, "dual_pixel_task": False}
    with pytest.raises(CheckpointError, match="1 channels in"):
        known.build(grey, "restormer")
