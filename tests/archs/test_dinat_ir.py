"""DiNAT-IR beyond what every restorer is asked: size and cost, its two forms, its files."""
import pytest
import torch

from k3dn_plugin.archs.dinat_ir_arch import DiNATIR, DiNATIRDual
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.evaluation.cost import count_macs
from k3dn_plugin.layers.neighbourhood_unit import ChannelGate, NeighbourhoodUnit
from k3dn_plugin.zoo.formats.base import official_format

PUBLISHED = {"inp_channels": 3, "out_channels": 3, "dim": 48, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 2,
             "heads": [1, 2, 4, 8], "kernel_size": 7, "dilations": [36, 18, 9, 4], "local_dilation": 1,
             "ffn_expansion_factor": 2.66, "bias": False, "LayerNorm_type": "WithBias", "chan_adapt": True,
             "gate_kernel": 7, "mode": "hybrid", "dual_pixel_task": False,
             "local_pooling": {"window_per_level": [384, 192, 96, 48]}}
DUAL = {"inp_channels": 6, "dual_pixel_task": True}
SMALL = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network_of(settings):
    return "dinat_ir_dual" if settings["dual_pixel_task"] else "dinat_ir"


@pytest.mark.parametrize("cls, parameters, tensors, macs", [
    (DiNATIR, 25_979_592, 582, 4_259_310_652_800), (DiNATIRDual, 25_985_496, 583, 4_270_419_619_200)])
def test_size_and_cost_of_the_published_networks(cls, parameters, tensors, macs):
    with torch.device("meta"):
        model = cls()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert count_macs(model) == macs


def test_cost_without_windows_is_that_of_global_pooling():
    with torch.device("meta"):
        model = DiNATIR(pool_windows=None)
    assert count_macs(model) == 4_240_344_177_216


def test_every_unit_has_the_dilation_and_window_of_its_level():
    with torch.device("meta"):
        model = DiNATIR()
    units = {name: unit for name, unit in model.named_modules() if isinstance(unit, NeighbourhoodUnit)}
    assert len(units) == 2 * (2 + 3 + 3 + 4 + 3 + 3 + 2 + 2)
    level_of = {"encoder.0": 0, "encoder.1": 1, "encoder.2": 2, "encoder.3": 3, "decoder.0": 2, "decoder.1": 1,
                "decoder.2": 0, "refinement": 0}
    for name, unit in units.items():
        level = next(level for stage, level in level_of.items() if name.startswith(f"{stage}."))
        assert unit.gate.window == (384 >> level, 384 >> level)
        assert unit.attention.dilation == (1 if name.endswith(".0") else (36, 18, 9, 4)[level])


def test_gate_by_its_formula_and_its_borders():
    torch.manual_seed(0)
    gate = ChannelGate(3, window=(2, 3)).double()
    x = random(1, 3, 4, 5)
    with torch.no_grad():
        found, weight = gate(x), gate.conv.weight.flatten()
    means = torch.nn.functional.avg_pool2d(x, (2, 3), 1)[..., [0, 1, 2, 2], :][..., [0, 0, 1, 2, 2]]
    wanted = torch.sigmoid(weight[0] * means[0, 0] + weight[1] * means[0, 1] + weight[2] * means[0, 2])
    torch.testing.assert_close(found[0, 1], wanted)
    torch.testing.assert_close(found[0, 0], torch.sigmoid(weight[1] * means[0, 0] + weight[2] * means[0, 1]))
    with torch.no_grad():
        assert ChannelGate(3, window=(4, 5)).double()(x).shape == (1, 3, 1, 1)


def test_the_single_network_adds_the_center_and_the_dual_one_nothing():
    for cls in (DiNATIR, DiNATIRDual):
        model = cls(**cls.tiny_arguments).double().eval()
        pair, center = random(1, 6, 16, 18), random(1, 3, 16, 18, seed=1)
        with torch.no_grad():
            model.out.weight.zero_()
            torch.testing.assert_close(model(pair, center), center if cls is DiNATIR else torch.zeros_like(center))


@pytest.mark.parametrize("changes", [
    {}, DUAL, {"kernel_size": 5, "heads": [1, 1, 2, 4]}, {**DUAL, "bias": True, "ffn_expansion_factor": 4.0},
    {"LayerNorm_type": "BiasFree", "num_blocks": [1, 2, 1, 3], "num_refinement_blocks": 2}, {"chan_adapt": False}])
def test_official_files_are_recognised_and_converted(changes):
    settings = {**PUBLISHED, **SMALL, **changes}
    known, network = official_format(network_of(settings)), network_of(settings)
    model = known.build(settings, network).double()
    official = {k: v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    assert {"patch_embed.proj.weight", "down2_3.body.0.weight", "up2_1.body.0.weight", "latent.0.globl.na2d.rpb",
            "encoder_level3.0.local.norm1.body.weight", "decoder_level1.0.globl.ffn.dwconv.weight",
            "reduce_chan_level2.weight", "refinement.0.local.na2d.qkv.bias"} <= set(official)
    assert ("latent.0.local.conv.weight" in official) == settings["chan_adapt"]
    found, read = known.recognise({k: v.shape for k, v in official.items()})
    assert found == network and read == settings
    other = known.build(read, found).double()
    known.load(other, official, found)
    views = random(1, settings["inp_channels"], 16, 24)
    with torch.inference_mode():
        assert torch.equal(other.restore(views), model.restore(views))


def test_dual_files_read_blue_first_and_ours_red_first():
    settings = {**PUBLISHED, **SMALL, **DUAL}
    known = official_format("dinat_ir_dual")
    model = known.build(settings, "dinat_ir_dual").double()
    first = known.to_official(model.state_dict())["patch_embed.proj.weight"]
    assert torch.equal(first[:, 0], model.embed.weight[:, 2]) and torch.equal(first[:, 4], model.embed.weight[:, 4])
    lq = random(1, 6, 16, 16)
    with torch.inference_mode():
        found = known.outputs(model, {"lq": lq}, "dinat_ir_dual")["restored"]
        assert torch.equal(found, model.restore(lq[:, [2, 1, 0, 5, 4, 3]]))


@pytest.mark.parametrize("mode, dilations", [("local_only", (1, 1)), ("globl_only", (18, 18)), ("hybrid", (1, 18))])
def test_modes_choose_the_dilations_of_a_block(mode, dilations):
    model = official_format("dinat_ir").build({**PUBLISHED, **SMALL, "mode": mode}, "dinat_ir")
    assert tuple(unit.attention.dilation for unit in model.encoder[1][0]) == dilations


def test_networks_of_other_tasks_are_reported():
    known = official_format("dinat_ir")
    restormer = {"patch_embed.proj.weight": (48, 3, 3, 3), "refinement.0.attn.temperature": (1, 1, 1)}
    assert known.recognise(restormer) is None
    with pytest.raises(CheckpointError, match="dinat_ir with 6 channels in"):
        known.build({**PUBLISHED, **DUAL}, "dinat_ir")


@pytest.mark.parametrize("arguments, message", [
    ({"blocks": [1]}, "two levels"), ({"heads": [1, 3]}, r"heads\[1\]: expected a divisor of the level's 16"),
    ({"dilations": [1, 0]}, "dilations: expected numbers of at least 1"), ({"width": 5}, "even"),
    ({"pool_windows": [[4, 4]]}, "pool_windows: .*each of the 2 levels"), ({"expansion": 0.1}, "expansion"),
    ({"first_dilations": [1, 1, 1]}, "first_dilations"), ({"kernel_size": 4}, "odd"), ({"gate_kernel": 2}, "odd")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        DiNATIR(**{**DiNATIR.tiny_arguments, **arguments})
