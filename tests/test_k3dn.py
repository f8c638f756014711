"""K3DN as a whole: its parts are swapped by options, it reblurs, it starts at identity where asked."""
import itertools

import pytest
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import ARCHS, MODULES

TINY = {"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}


def build(**changes):
    torch.manual_seed(0)
    return ARCHS.build({**TINY, **changes}).eval()


def part(name):
    return None if name is None else TINY_PARTS.get(name, {"type": name})


TINY_PARTS = {value["type"]: value for value in TINY.values() if isinstance(value, dict)}


@pytest.mark.parametrize("disparity, deblur, preservation", list(itertools.product(
    ["CostVolumeDisparity", "CorrelationDisparity", "ConcatDisparity", None],
    ["KernelSetDeblur", "WienerDeblur", "ConvDeblur", None],
    ["SharpRegionPreservation", "ConcatSkip", "AddSkip", "GatedSkip", None])))
def test_every_combination_of_parts_restores(disparity, deblur, preservation):
    model = build(disparity=part(disparity), deblur=part(deblur), preservation=part(preservation))
    with torch.inference_mode():
        assert model(torch.rand(1, 6, 40, 60)).shape == (1, 3, 40, 60)


def test_defaults_are_the_released_network():
    model = ARCHS.build({"type": "K3DN"})
    assert sum(p.numel() for p in model.parameters()) == 16_099_350
    assert model.size_rule.padded(1120, 1680) == (1152, 1680)
    assert model.size_rule.padded(1, 1) == (288, 336)


@pytest.mark.parametrize("deblur", ["KernelSetDeblur", "WienerDeblur"])
def test_reblurring_trains_kernels_and_disparity(deblur):
    model = build(deblur=part(deblur)).train()
    reblur = MODULES.build({"type": "KernelSetReblur", "view": "left"})
    batch = {"lq": torch.rand(1, 6, 48, 48), "gt": torch.rand(1, 3, 48, 48)}
    prediction = model.training_outputs(batch)
    reblurred = reblur(batch["gt"], ReblurGuidance(batch, prediction, model))
    assert list(reblurred) == ["left"] and reblurred["left"].shape == batch["gt"].shape
    reblurred["left"].square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.deblur.parameters())
    assert model.disparity.pooling.project.weight.grad.abs().sum() > 0


def test_a_restorer_without_kernels_cannot_be_reversed():
    model = build(deblur={"type": "ConvDeblur", "blocks": 1})
    batch = {"lq": torch.rand(1, 6, 48, 48), "gt": torch.rand(1, 3, 48, 48)}
    reblur = MODULES.build({"type": "KernelSetReblur"})
    with pytest.raises(OptionError, match="ConvDeblur cannot run backwards.*WienerDeblur"):
        reblur(batch["gt"], ReblurGuidance(batch, model.training_outputs(batch), model))
    with pytest.raises(OptionError, match="Linear does not have"):
        reblur(batch["gt"], ReblurGuidance(batch, {"restored": 0}, torch.nn.Linear(1, 1)))


def test_residual_starts_at_the_center_view():
    model = build(residual=True)
    pair, center = torch.rand(1, 6, 40, 60), torch.rand(1, 3, 40, 60)
    with torch.inference_mode():
        torch.testing.assert_close(model(pair), (pair[:, :3] + pair[:, 3:]) / 2)
        torch.testing.assert_close(model(pair, center), center)
        torch.testing.assert_close(model.reblur(center, model.training_outputs({"lq": pair})["disparity"]),
                                   center)


def test_a_host_sets_the_widths_of_its_parts():
    with pytest.raises(OptionError, match="channels: is set by the network"):
        build(deblur={"type": "KernelSetDeblur", "channels": 3})


def test_window_changes_the_size_rule():
    assert build(window=[10, 6]).size_rule.multiple == (80, 48)


def test_identity_blocks_start_as_the_identity_and_keep_the_variance():
    model = build(identity_blocks=True, base_channels=16, preservation=None, residual=True)
    x = torch.randn(2, 6, 96, 96)
    with torch.inference_mode():
        for down, encoder in zip(model.down, model.encoder, strict=True):
            sampled = down(x)
            assert torch.equal(encoder(sampled), sampled)
            assert 0.5 < sampled.square().mean() / x.square().mean() < 2
            x = sampled
        up = model.up[0](x)
        assert 0.5 < up.square().mean() / x.square().mean() < 2
        pair = torch.rand(1, 6, 48, 48)
        assert torch.allclose(model(pair), (pair[:, :3] + pair[:, 3:]) / 2, atol=1e-6)
