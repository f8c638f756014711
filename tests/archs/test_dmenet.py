"""DMENet beyond what every restorer is asked: its norm, its maps, its gradient, its files."""
import numpy as np
import pytest
import torch

from k3dn_plugin.archs.dmenet_arch import MEAN_BGR, DefocusNetwork, DMENet, OffsetNorm, RefineBlock, conv3
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.cost import count_macs, count_parameters
from k3dn_plugin.layers.hyper_laplacian import quantize
from k3dn_plugin.zoo.formats.base import official_format

SCOPE = "main_net/defocus_net/"


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    torch.manual_seed(0)
    return DMENet(**{**DMENet.tiny_arguments, **arguments}).double().eval()


def test_size_and_cost_of_the_published_network():
    with torch.device("meta"):
        model = DMENet()
    assert count_parameters(model) == 26_939_819
    assert sum(p.numel() for p in model.network.encoder.parameters()) == 20_024_384
    assert sum(p.numel() for p in model.network.heads.parameters()) == 1_590_794
    assert sum(b.numel() for b in model.state_dict().values()) == 26_939_819 + 6_730
    assert len(model.state_dict()) == 249
    assert count_macs(model) == 2_312_049_868_800, "without the heads, which restoring leaves out"


def test_norm_has_an_offset_and_keeps_the_biased_variance():
    norm, x = OffsetNorm(3).double(), 4 * random(2, 3, 5, 7)
    with torch.no_grad():
        norm.bias += torch.tensor([0.0, 1.0, 2.0])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    wanted = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt() + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), wanted)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance)
    kept = norm.running_mean.clone()
    frozen = norm.eval()(x)
    wanted = (x - kept[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(frozen, wanted + norm.bias[:, None, None])
    assert torch.equal(norm.running_mean, kept)


def test_convolutions_repeat_the_edge():
    conv = conv3(1, 1).double()
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.zero_()
        found = conv(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).double())
    assert found[0, 0].tolist() == [[4 * 1 + 2 * 2 + 2 * 3 + 4, 2 * 1 + 4 * 2 + 3 + 2 * 4],
                                    [2 * 1 + 2 + 4 * 3 + 2 * 4, 1 + 2 * 2 + 2 * 3 + 4 * 4]]


def test_refinement_adds_two_activated_terms():
    """Each term is activated, so it is at least -0.2 times what it was; the sum may be anything."""
    torch.manual_seed(0)
    block, x = RefineBlock(4).double().eval(), random(1, 4, 8, 8) - 0.5
    with torch.no_grad():
        first, second = block.body
        inner = torch.nn.functional.leaky_relu(first.norm(first.conv(x)), 0.2)
        body = torch.nn.functional.leaky_relu(second.norm(second.conv(inner)), 0.2)
        skip = torch.nn.functional.leaky_relu(block.skip.norm(block.skip.conv(x)), 0.2)
        torch.testing.assert_close(block(x), body + skip)


def test_image_enters_as_bgr_less_the_mean():
    seen, network = [], DefocusNetwork(width=4, refine_blocks=0).double().eval()
    network.encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = random(1, 3, 16, 16)
    with torch.inference_mode():
        network(image)
    for channel, (colour, mean) in enumerate(zip((2, 1, 0), MEAN_BGR)):
        torch.testing.assert_close(seen[0][:, channel], 255 * image[:, colour] - mean)


def test_maps_of_all_sizes():
    network = DefocusNetwork(width=4, refine_blocks=1).double().eval()
    with torch.inference_mode():
        image = random(1, 3, 32, 48)
        defocus, auxiliary = network.with_auxiliary(image)
        assert torch.equal(defocus, network(image))
    assert [tuple(a.shape) for a in auxiliary] == [(1, 1, 2 << i, 3 << i) for i in range(5)]
    assert defocus.shape == (1, 1, 32, 48) and 0 < defocus.min() and defocus.max() < 1
    # The heads' last layer is normalised before the sigmoid, the map's is not.
    assert type(network.final[-2]) is torch.nn.Conv2d and network.heads[0][1].plain


def test_map_is_rounded_to_eight_bits():
    """Sigma is (15 d - 1) / 2 with d of eight bits; where d is a 15th or less there is no blur."""
    seen, image = [], random(1, 3, 16, 16)
    defocus = torch.linspace(0, 1, 256, dtype=torch.float64).view(1, 1, 16, 16) + 0.4 / 255
    for rounded in (True, False):
        model = build(eight_bit_map=rounded, levels=10_000)
        model.deconvolution.with_slope = lambda image, sigma: (seen.append(sigma) or image, image)
        model.deblur(image, defocus)
    steps = torch.arange(256, dtype=torch.float64).view(16, 16) / 255
    widths = ((15 * steps - 1) / 2).clamp(min=0)
    torch.testing.assert_close(seen[0], quantize(widths, 10_000))
    exact = ((15 * defocus[0, 0] - 1) / 2).clamp(min=0)
    torch.testing.assert_close(seen[1], quantize(exact, 10_000))


def test_sharp_places_stay_as_they_are():
    model, image = build(), random(1, 3, 32, 32)
    defocus = torch.full((1, 1, 32, 32), 0.06, dtype=torch.float64)
    torch.testing.assert_close(model.deblur(image, defocus), image)
    defocus[..., 16:] = 0.3
    found = model.deblur(image, defocus)
    torch.testing.assert_close(found[..., :16], image[..., :16])
    assert (found[..., 16:] - image[..., 16:]).abs().max() > 0.01


def test_gradient_of_the_map_is_the_difference_of_levels():
    """Of the restored images, which are clipped: where both levels are clipped nothing pulls at the map."""
    model, image = build(eight_bit_map=False, levels=200), random(1, 3, 48, 48)
    defocus = torch.linspace(0.20, 0.21, 4, dtype=torch.float64).repeat(12).expand(1, 1, 48, 48)
    defocus = defocus.contiguous()
    defocus.requires_grad_()
    restored = model.deblur(image, defocus)
    gradient, = torch.autograd.grad(restored[..., 0].sum(), defocus)
    assert not gradient[..., 1:].any(), "a pixel's blur changes that pixel alone"
    sharp = [model.deconvolution.deconvolve(image[0], (15 * d - 1) / 2).clamp(0, 1)
             for d in defocus.detach()[0, 0, 0, :2].tolist()]
    wanted = (sharp[1] - sharp[0])[..., 0].sum() / (defocus[0, 0, 0, 1] - defocus[0, 0, 0, 0]).detach()
    assert gradient.sum().item() == pytest.approx(wanted.item(), rel=0.05)


def test_training_outputs_have_the_maps():
    model, pair = build(), random(1, 6, 20, 30)
    prediction = model.training_outputs({"lq": pair})
    assert prediction["defocus"].shape == (1, 1, 20, 30)
    assert [a.shape[-1] for a in prediction["defocus_scales"]] == [2, 4, 8, 16, 32]
    with torch.no_grad():
        torch.testing.assert_close(prediction["restored"].detach(), model(pair))


@pytest.mark.parametrize("arguments", [{"levels": 0}, {"width": 5}, {"refine_blocks": -1}, {"alpha": 2.0},
                                       {"fidelity": 0.0}, {"kernel_support": 20}])
def test_impossible_settings_are_reported(arguments):
    with pytest.raises(OptionError, match="expected"):
        build(**arguments)


def test_official_files_are_recognised_and_converted():
    known, model = official_format("dmenet"), build(refine_blocks=2)
    official = known.to_official(model.state_dict())
    assert {f"{SCOPE}encoder/conv5_4/kernel:0", f"{SCOPE}decoder/u4_aux/b2/moving_variance:0",
            f"{SCOPE}decoder/u3/c3/bias:0", f"{SCOPE}decoder/u0/b_init/beta:0",
            f"{SCOPE}decoder/u0/c_res1/kernel:0", f"{SCOPE}decoder/u0/b1_2/moving_mean:0",
            f"{SCOPE}decoder/uf/c3/bias:0"} <= set(official)
    # A training checkpoint holds more.
    official |= {f"{SCOPE}encoder/c_logits_1/W:0": np.zeros((4, 4)), "main_net/binary_net/c1/kernel:0":
                 np.zeros((1, 1, 1, 4)), "discriminator/feature/c1/kernel:0": np.zeros((4, 4, 4, 4))}
    network, settings = known.recognise({key: value.shape for key, value in official.items()})
    assert (network, settings) == ("dmenet", {"encoder_channels": [8, 16, 32, 64, 64], "refine_blocks": 2})
    other = known.build(settings, network).double()
    known.load(other, official, network)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert known.recognise({"conv1_1.0.weight": (32, 3, 3, 3)}) is None
