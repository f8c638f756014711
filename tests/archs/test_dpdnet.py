"""DPDNet beyond what every restorer is asked: its padding, its dropout, its colours, its Keras files."""
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.archs.dpdnet_arch import DPDNet
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.evaluation.cost import count_macs, count_parameters
from k3dn_plugin.zoo.formats.base import official_format

SETTINGS = {"in_channels": 6, "out_channels": 3, "widths": [4, 8, 16, 32, 64]}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    torch.manual_seed(0)
    return DPDNet(**{"width": 4, **arguments}).double().eval()


@pytest.mark.parametrize("dual_pixel, parameters, macs", [(True, 31_035_151, 1_574_298_969_600),
                                                          (False, 31_033_423, 1_571_047_564_800)])
def test_size_and_cost_of_the_published_networks(dual_pixel, parameters, macs):
    with torch.device("meta"):
        model = DPDNet(dual_pixel=dual_pixel)
    assert count_parameters(model) == parameters
    assert count_macs(model) == macs
    assert len(model.state_dict()) == 48


def test_output_layers_are_three_channels_and_a_sigmoid():
    model, pair = build(), random(1, 6, 16, 32)
    kept = []
    model.colours.register_forward_hook(lambda *args: kept.append(args[-1]))
    with torch.no_grad():
        model.colours.bias += torch.tensor([0.5, -0.5, 0.1])
        found = model.restore(pair)
    assert kept[0].shape == (1, 3, 16, 32) and kept[0].min() < 0
    wanted = F.conv2d(kept[0].relu(), model.out.weight, model.out.bias).sigmoid()
    torch.testing.assert_close(found, wanted)


def test_dropout_comes_before_skip_and_pooling(monkeypatch):
    """One mask for both at the fourth level, and one for the fifth; none in evaluation."""
    model, masked = build(dropout=0.3), []
    seen = {}
    model.encoder[4].register_forward_pre_hook(lambda _, args: seen.update(pooled=args[0]))
    model.decoder[0].register_forward_pre_hook(lambda _, args: seen.update(joined=args[0]))
    real = F.dropout

    def dropout(x, share, training):
        masked.append(real(x, share, training))
        assert (share, training) == (0.3, model.training)
        return masked[-1]

    monkeypatch.setattr(F, "dropout", dropout)
    model.train()(random(1, 6, 32, 32))
    assert [m.shape[1] for m in masked] == [32, 64]
    torch.testing.assert_close(seen["pooled"], F.max_pool2d(masked[0], 2))
    torch.testing.assert_close(seen["joined"][:, :32], masked[0])
    masked.clear()
    pair = random(1, 6, 32, 32)
    torch.testing.assert_close(model.eval()(pair), model(pair), rtol=0, atol=0)


def test_colours_enter_and_leave_as_bgr():
    model, pair = build(), random(1, 6, 16, 16)
    with torch.inference_mode():
        inside = model.restore(torch.cat([pair[:, :3].flip(1), pair[:, 3:].flip(1)], 1))
        torch.testing.assert_close(model(pair), inside.flip(1))


def test_single_image_network_takes_the_center_view():
    model, pair, center = build(dual_pixel=False), random(1, 6, 16, 16), random(1, 3, 16, 16, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(model(pair, center), model.restore(center.flip(1)).flip(1))
    assert model.card.views == ("center",) and DPDNet.card.views == ("left", "right")


def test_no_pixel_further_than_the_margin_counts():
    model, pair, margin = build(), random(1, 6, 16, 512), DPDNet.card.receptive_margin
    with torch.inference_mode():
        wanted = model(pair)
        # Where in its pooling cell a pixel lies decides how far it looks, hence sixteen places.
        for column in range(240, 256):
            changed = torch.zeros_like(pair)
            near = slice(column - margin, column + margin + 1)
            changed[..., near] = pair[..., near]
            assert torch.equal(wanted[..., column], model(changed)[..., column])


def test_first_weights_are_those_of_keras():
    torch.manual_seed(0)
    model = DPDNet(width=16)
    weight = model.encoder[3][0].weight
    wanted = (2 / weight[0].numel()) ** 0.5
    assert weight.std().item() == pytest.approx(wanted, rel=0.02)
    assert weight.abs().max() <= 2 * wanted / 0.8796
    assert model.out.weight.abs().max() <= 1, "Glorot: sqrt(6 / (3 + 3))"
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("arguments", [{"width": 0}, {"dropout": 1.0}])
def test_impossible_settings_are_reported(arguments):
    with pytest.raises(OptionError, match="DPDNet: expected a positive width"):
        DPDNet(**arguments)


@pytest.mark.parametrize("dual_pixel", [True, False])
def test_keras_files_are_recognised_and_converted(dual_pixel):
    known, model = official_format("dpdnet"), build(dual_pixel=dual_pixel)
    official = known.to_official(model.state_dict())
    assert official["conv2d_11/kernel:0"].shape == (2, 2, 64, 32)
    # Another session, another count: the order is what counts.
    official = {key.replace("conv2d_", "conv2d_1"): value for key, value in official.items()}
    network, settings = known.recognise({key: value.shape for key, value in official.items()})
    assert (network, settings) == ("dpdnet", {**SETTINGS, "in_channels": 6 if dual_pixel else 3})
    other = known.build(settings, network).double()
    known.load(other, official, network)
    assert other.dual_pixel == dual_pixel
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_what_is_not_published_is_reported():
    known = official_format("dpdnet")
    official = known.to_official(build().state_dict())
    shapes = {key: value.shape for key, value in official.items()}
    assert known.recognise(dict(list(shapes.items())[2:])) is None
    assert known.recognise({**shapes, "conv2d_25/gamma:0": (3,)}) is None
    assert known.recognise({"head.0.weight": (64, 6, 3, 3)}) is None
    with pytest.raises(CheckpointError, match="in Keras's order; found 48"):
        known.convert(dict(reversed(official.items())), "dpdnet")
    with pytest.raises(CheckpointError, match="number 48 is nothing"):
        known.convert(dict(list(official.items())[:-1]), "dpdnet")
    with pytest.raises(CheckpointError, match="twice as wide"):
        known.build({**SETTINGS, "widths": [4, 8, 16, 32, 32]}, "dpdnet")
    with pytest.raises(CheckpointError, match="only 6 in"):
        known.build({**SETTINGS, "in_channels": 4}, "dpdnet")
    with pytest.raises(CheckpointError, match="shapes differ"):
        known.load(build(dual_pixel=False), official, "dpdnet")
