"""INIKNet beyond what every restorer is asked: its kernel bank, its recurrence, channel order, tiles, its files."""
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.archs.iniknet_arch import INIKNet, INIKNetDual
from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.layers.implicit_kernels import ImplicitKernelBank
from k3dn_plugin.layers.macs import recorded_macs
from k3dn_plugin.zoo.formats.base import official_format

TINY = INIKNet.tiny_arguments


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=INIKNet, **arguments):
    torch.manual_seed(0)
    return cls(**{**TINY, **arguments}).double().eval()


def test_size_and_cost_are_those_of_the_sheet():
    with torch.device("meta"):
        model = INIKNet().eval()
    assert sum(p.numel() for p in model.parameters()) == 1_976_847
    with torch.no_grad(), recorded_macs() as products, FlopCounterMode(display=False) as counter:
        model.scales(torch.empty(1, 3, 1120, 1680, device="meta"))
    pixels = 1120 * 1680 * 21 // 16  # of all three scales
    # The bank is drawn once; the group of no kernel, 30 responses, is neither mixed nor weighed.
    assert counter.get_total_flops() // 2 == 2_202_680_607_680 - 30 * 3 * pixels
    # A response is weighed by the product of its two weights, which is shared by the three colors.
    assert sum(products) == 7 * (30 + 10) * pixels


def test_taps_by_their_definition():
    torch.manual_seed(0)
    bank = ImplicitKernelBank(bases=3, max_kernel_size=7, hidden=5, frequencies=(2.0, 12.0)).double()
    kernels = bank()
    assert [tuple(k.shape) for k in kernels] == [(3, 3, 3), (3, 5, 5), (3, 7, 7)]
    torch.testing.assert_close(bank.frequency.detach(), torch.tensor([2.0, 7.0, 12.0], dtype=torch.float64))

    def shape(i, place):
        w, x = bank.frequency[i], torch.tensor(place, dtype=torch.float64)
        x = torch.sin(w * (bank.weight0[i] @ x + bank.bias0[i]))
        return bank.weight4[i, 0] @ torch.sin(w * (bank.weight2[i] @ x + bank.bias2[i]))

    row, column = 2 * 1 / 4 - 1, 2 * 4 / 4 - 1
    rho = math.hypot(row, column)
    torch.testing.assert_close(kernels[1][2, 1, 4],
                               9 / 25 * shape(2, [rho / math.sqrt(2), (row / rho + 1) / 2, (column / rho + 1) / 2]))
    torch.testing.assert_close(kernels[2][0, 3, 3], 9 / 49 * shape(0, [0, 1, 0.5]))


def test_kernels_are_summed_as_published():
    """All 3 x groups x bases responses stored and mixed at once, the group of no kernel among them."""
    model, image = build(), random(1, 3, 32, 32)
    by_size, by_basis = random(2, 1, 4, 32, 32, seed=1)
    with torch.no_grad():
        found = model.deblurred(image, model.bank(), by_size, by_basis)
        share, basis = model.select_size(by_size).softmax(1), model.select_basis(by_basis)
        responses = [torch.zeros(1, 6, 32, 32, dtype=torch.float64)]
        for kernels in model.bank():
            responses.append(torch.cat([F.conv2d(image[:, c:c + 1], kernel[None, None], padding=kernel.shape[-1] // 2)
                                        for c in range(3) for kernel in kernels], 1))
        weighed = torch.cat([m * share[:, g:g + 1] * basis.repeat(1, 3, 1, 1) for g, m in enumerate(responses)], 1)
        torch.testing.assert_close(found, model.mix(weighed))


def test_quarter_size_images_are_the_middle_of_four_by_four():
    seen = []
    model, image = build(), random(1, 3, 32, 48)
    model.features.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        model.scales(image)
    torch.testing.assert_close(seen[1], F.avg_pool2d(image, 2))
    torch.testing.assert_close(seen[2], F.avg_pool2d(image[..., 1:, 1:], 2, 4))


def test_outside_everything_is_red_green_blue():
    model, pair = build(), random(1, 6, 32, 32)
    center = (pair[:, :3] + pair[:, 3:]) / 2
    with torch.no_grad():
        torch.testing.assert_close(model(pair), model.restore(center.flip(1)).flip(1))
        full, half, _ = model.scales(center.flip(1))
        prediction = model.training_outputs({"lq": pair})
    torch.testing.assert_close(prediction["restored"], full.flip(1))
    torch.testing.assert_close(prediction["scales"][0], half.flip(1))


def test_tiles_with_the_declared_margin_are_exact():
    model, image = build(), random(1, 3, 64, 640)
    with torch.no_grad():
        whole = model.restore(image)
        part = model.restore(image[..., 64:])
        shifted = model.restore(image[..., 56:-8])
    margin = model.card.receptive_margin
    torch.testing.assert_close(part[..., margin:], whole[..., 64 + margin:], rtol=0, atol=1e-12)
    assert (shifted[..., margin:-margin] - whole[..., 56 + margin:-8 - margin]).abs().max() > 1e-9, "steps matter"


def test_the_dual_network_without_its_right_view_is_the_single_one():
    single, dual = build(), build(INIKNetDual)
    state, bases = dict(single.state_dict()), TINY["bases"]
    state["features.extract.0.weight"] = torch.cat([state["features.extract.0.weight"]] * 2, 1)
    state["features.extract.0.weight"][:, 3:] = 0
    for key in ("select_basis.weight", "select_basis.bias"):
        state[key] = torch.cat([state[key], random(*state[key].shape)])
    mixing = state["mix.weight"].unflatten(1, (3, 3 * bases))
    state["mix.weight"] = torch.cat([mixing, torch.zeros_like(mixing)], 2).flatten(1, 2)
    dual.load_state_dict(state)
    image = random(1, 3, 32, 48)
    with torch.no_grad():
        for one, other in zip(single.scales(image), dual.scales(torch.cat([image, image], 1))):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("arguments, message", [
    ({"width": 0}, "width and blocks"), ({"max_kernel_size": 8}, "odd number"), ({"bases": 0}, "bases and hidden")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        INIKNet(**arguments)


@pytest.mark.parametrize("cls, network", [(INIKNet, "iniknet"), (INIKNetDual, "iniknet_dual")])
def test_official_files_there_and_back(cls, network):
    model, known = build(cls, unet_blocks=2, bases=11), official_format(network)
    official = known.to_official(model.state_dict())
    basis = "inr_conv.kernelINR_list.3.layers"
    assert torch.equal(official[f"{basis}.1.w0"], official[f"{basis}.3.w0"])
    assert {"lstms_basis_select.left2right.cell.layers.layers.0.main.0.main.0.weight", "unet.up2.main.0.weight",
            "inr_conv.kernelINR_list.10.layers.4.weight", "lstms_scale_select.norm.norm.bias"} <= set(official)
    shapes = {key: tuple(value.shape) for key, value in official.items()}
    found, settings = known.recognise(shapes)
    assert found == network and settings["lstm_residual_blocks"] == 1
    other = known.build(settings, found).double()
    known.load(other, {key: value.numpy() for key, value in official.items()}, found)
    image = random(1, settings["in_channels"], 32, 32)
    with torch.no_grad():
        assert torch.equal(other.restore(image), model.restore(image))
    with pytest.raises(CheckpointError, match="sum.weight reads 7 responses"):
        known.recognise({**shapes, "sum.weight": (3, 7, 1, 1)})
    assert known.recognise({key: shape for key, shape in shapes.items() if "w0" not in key}) is None


def test_of_two_values_of_a_frequency_the_later_counts():
    known, model = official_format("iniknet"), build()
    official = {key: value.numpy().copy() for key, value in known.to_official(model.state_dict()).items()}
    official["inr_conv.kernelINR_list.1.layers.3.w0"] += 1.5
    state = known.convert(official, "iniknet")
    torch.testing.assert_close(state["bank.frequency"], model.bank.frequency.detach() + torch.tensor([0, 1.5]).double())
