"""NAFNet beyond what every restorer is asked: size and cost, its block, pooling and padding, its files."""
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.nafnet_arch import NAFNet, NAFNetDual
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.layers.naf import NAFBlock
from k3dn_plugin.zoo import load_official
from k3dn_plugin.zoo.formats.base import official_format

TINY = NAFNet.tiny_arguments
SIDD = {"encoder_blocks": [2, 2, 4, 8], "middle_blocks": 12, "decoder_blocks": [2, 2, 2, 2], "train_size": None}
PUBLISHED = {"img_channel": 3, "width": 32, "enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1,
             "dec_blk_nums": [1, 1, 1, 1], "local_pooling": True, "train_size": [1, 3, 256, 256], "fast_imp": False}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=NAFNet, **arguments):
    """A tiny network that has left its initialisation, where every block is the identity."""
    torch.manual_seed(0)
    model = cls(**{**TINY, **arguments}).double().eval()
    with torch.no_grad():
        for block in model.modules():
            if isinstance(block, NAFBlock):
                block.beta.uniform_(0.5, 1)
                block.gamma.uniform_(0.5, 1)
    return model


@pytest.mark.parametrize("cls, arguments, parameters, macs", [
    (NAFNet, {}, 17_111_907, 527_412_480_000), (NAFNet, {"train_size": None}, 17_111_907, 458_051_383_296),
    (NAFNet, {"width": 64}, 67_888_835, 2_087_567_462_400), (NAFNet, SIDD, 29_159_715, 460_559_388_672),
    (NAFNet, {"width": 64, **SIDD}, 115_982_915, 1_815_142_514_688), (NAFNetDual, {}, 17_112_771, 529_038_182_400)])
def test_size_and_cost_of_the_published_networks(cls, arguments, parameters, macs):
    with torch.device("meta"), torch.no_grad():
        model = cls(**arguments)
        with FlopCounterMode(display=False) as counter:
            model.restore(torch.empty(1, 3 * len(cls.card.views), 1120, 1680))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 664
    assert counter.get_total_flops() == 2 * macs


def test_block_written_out():
    torch.manual_seed(0)
    block, x = NAFBlock(4).double(), random(2, 4, 5, 6)
    with torch.no_grad():
        assert torch.equal(block(x), x), "a new block is the identity"
        block.beta.fill_(0.5), block.gamma.fill_(-2)
        a = block.conv2(block.conv1(F.layer_norm(x.movedim(1, -1), (4,), eps=1e-6).movedim(-1, 1)))
        a = a[:, :4] * a[:, 4:]
        y = x + 0.5 * block.conv3(a * block.attention(a.mean((2, 3), keepdim=True)))
        u = block.conv4(F.layer_norm(y.movedim(1, -1), (4,), eps=1e-6).movedim(-1, 1))
        torch.testing.assert_close(block(x), y - 2 * block.conv5(u[:, :4] * u[:, 4:]))


def test_windows_side_by_side_have_an_attention_each():
    torch.manual_seed(0)
    block, x = NAFBlock(4).double(), random(1, 4, 5, 12)
    with torch.no_grad():
        block.beta.fill_(1)
        torch.testing.assert_close(block(x, (1, 1)), block(x))
        other = x.clone()
        other[..., 6:] += random(1, 4, 5, 6, seed=1)
        # Without the columns beside the middle, no convolution looks across.
        block.conv2.weight[..., ::2] = 0
        assert torch.equal(block(other, (1, 2))[..., :6], block(x, (1, 2))[..., :6])
        assert not torch.equal(block(other)[..., :6], block(x)[..., :6])


def test_sizes_are_padded_with_zeros_inside():
    model, image = build(), random(1, 3, 37, 50)
    padded = F.pad(image, (0, 2, 0, 3))
    with torch.inference_mode():
        torch.testing.assert_close(model.restore(image), model.restore(padded)[..., :37, :50], rtol=0, atol=0)
    assert model.size_rule.accepts(37, 50)


def test_local_pooling_acts_on_frames_larger_than_its_windows():
    local, whole = build(train_size=[32, 32]), build(train_size=None)
    with torch.inference_mode():
        small, large = random(1, 3, 48, 48), random(1, 3, 48, 100)
        assert torch.equal(local.restore(small), whole.restore(small))
        assert (local.restore(large) - whole.restore(large)).abs().max() > 1e-4


def test_the_center_is_restored():
    single, dual = build(), build(NAFNetDual)
    pair, center = random(1, 6, 16, 24), random(1, 3, 16, 24, seed=1)
    with torch.inference_mode():
        assert torch.equal(single(pair, center), single(random(1, 6, 16, 24, seed=2), center))
        torch.testing.assert_close(dual(pair), dual(pair, (pair[:, :3] + pair[:, 3:]) / 2))
        for model in (single, dual):
            model.trunk.ending.weight.zero_(), model.trunk.ending.bias.zero_()
            torch.testing.assert_close(model(pair, center), center)
    assert dual.card.views == ("left", "right", "center")


@pytest.mark.parametrize("arguments, message", [
    ({"encoder_blocks": [1]}, "the same one level or more"),
    ({"encoder_blocks": [], "decoder_blocks": []}, "one level"),
    ({"width": 0}, "width"), ({"middle_blocks": -1}, "middle_blocks"), ({"train_size": [256]}, "rows and columns"),
    ({"train_size": [0, 9]}, "positive")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        NAFNet(**{**TINY, **arguments})


@pytest.mark.parametrize("network, changes", [
    ("nafnet", {}), ("nafnet", {"enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12, "dec_blk_nums": [2, 2, 2, 2],
                                "local_pooling": False}),
    ("nafnet", {"enc_blk_nums": [1, 2], "middle_blk_num": 0, "dec_blk_nums": [3, 1], "local_pooling": False}),
    ("nafnet_dual", {})])
def test_official_files_are_recognised_and_converted(network, changes):
    known = official_format(network)
    settings = {**PUBLISHED, "width": 4, **changes}
    if not settings["local_pooling"]:
        del settings["train_size"], settings["fast_imp"]
    if network == "nafnet_dual":
        settings.pop("img_channel")
        settings.update(in_channels=6, out_channels=3, residual="center")
    model = known.build(settings, network).double()
    official = {k: v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    assert {"intro.weight", "encoders.1.0.sca.1.weight", "ups.0.0.weight", "downs.1.bias",
            "decoders.0.0.norm2.bias"} <= set(official)
    found, read = known.recognise({k: v.shape for k, v in official.items()})
    assert found == network and read == settings
    other = known.build(read, found).double()
    known.load(other, official, found)
    views = random(1, 9 if network == "nafnet_dual" else 3, 20, 30)
    with torch.inference_mode():
        assert torch.equal(other.restore(views), model.restore(views))


def test_what_is_not_supported_is_reported():
    known = official_format("nafnet")
    marks = {"intro.weight": (32, 3, 3, 3), "ending.weight": (3, 32, 3, 3), "encoders.0.0.beta": (1, 32, 1, 1)}
    assert known.recognise({**marks, "encoders.0.0.se.1.weight": (16, 32, 1, 1)}) is None, "the Baseline network"
    for changes, message in (({"img_channel": 1}, "1 channels in"), ({"fast_imp": True}, "fast_imp")):
        with pytest.raises(CheckpointError, match=message):
            known.build({**PUBLISHED, **changes}, "nafnet")
    with pytest.raises(CheckpointError, match="6 channels in and 6 out"):
        known.build({**PUBLISHED, "img_channel": 6}, "nafnet")


@pytest.mark.parametrize("cls", [NAFNet, NAFNetDual])
def test_a_file_with_params_is_loaded(cls, tmp_path):
    model = build(cls, train_size=None).float()
    torch.save({"params": official_format("nafnet").to_official(model.state_dict())}, tmp_path / "nafnet.pth")
    found = load_official(tmp_path / "nafnet.pth").restorer
    assert type(found) is cls
    pair = random(1, 6, 21, 24).float()
    with torch.inference_mode():
        assert torch.equal(found(pair), model(pair))
