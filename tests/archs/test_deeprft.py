"""DeepRFT beyond what every restorer is asked: its kernels, its Fourier branch, its windows, its files."""
import math

import numpy as np
import pytest
import torch

from k3dn_plugin.archs.deeprft_arch import DeepRFT, DeepRFTDual, windows
from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.fourier_residual import DOConv, real_inverse
from k3dn_plugin.zoo.formats.base import official_format

TINY = DeepRFT.tiny_arguments


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(cls=DeepRFT, **arguments):
    torch.manual_seed(0)
    return cls(**{**TINY, **arguments}).double().eval()


@pytest.mark.parametrize("num_res, trained, with_diagonal, tensors",
                         [(4, 5_426_313, 5_774_370, 246), (8, 10_189_449, 10_827_810, 438),
                          (20, 24_478_857, 25_988_130, 1014)])
def test_parameters_of_the_published_networks(num_res, trained, with_diagonal, tensors):
    with torch.device("meta"):
        model = DeepRFT(num_res=num_res)
    assert sum(p.numel() for p in model.parameters()) == trained
    assert sum(v.numel() for v in model.state_dict().values()) == with_diagonal
    assert len(model.state_dict()) == tensors


def test_kernel_starts_as_w_and_is_the_published_product():
    conv = DOConv(2, 3).double()
    torch.testing.assert_close(conv.kernel(), conv.W.detach().view(3, 2, 3, 3))
    with torch.no_grad():
        conv.D.normal_()
        conv.D_diag.normal_()
    kernel = conv.kernel()
    o, i, row, column = 1, 0, 2, 1
    wanted = sum((conv.D[i, row * 3 + column, s] + conv.D_diag[i, row * 3 + column, s]) * conv.W[o, i, s]
                 for s in range(9))
    assert kernel[o, i, row, column].item() == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize("height, width", [(6, 8), (5, 7), (4, 1)])
def test_real_inverse_of_spectra_that_are_not_real_signals(height, width):
    bins = width // 2 + 1
    spectrum = torch.complex(random(height, bins) - 0.5, random(height, bins, seed=1) - 0.5)
    found = real_inverse(spectrum, width)
    z = torch.fft.ifft(spectrum, dim=0) * height
    wanted = torch.zeros(height, width, dtype=torch.float64)
    for m in range(width):
        wanted[:, m] = z[:, 0].real
        for k in range(1, (width + 1) // 2):
            wanted[:, m] += 2 * (z[:, k] * np.exp(2j * math.pi * k * m / width)).real
        if width % 2 == 0:
            wanted[:, m] += (-1) ** m * z[:, -1].real
    torch.testing.assert_close(found, wanted / (height * width))


def test_fourier_branch_under_autocast_stays_in_float32():
    model = DeepRFT(**TINY).eval()
    image = torch.rand(1, 3, 20, 28)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        branch = model.encoder[0][0].fourier(torch.rand(1, 4, 20, 28))
        assert branch.dtype == torch.float32
        assert model.restore(image).isfinite().all()


@pytest.mark.parametrize("height, width", [(8, 8), (8, 13), (13, 8), (11, 21)])
def test_windows_cover_each_pixel_once(height, width):
    side, count = 8, torch.zeros(height, width)
    for row, column, top, left in windows(height, width, side):
        assert 0 <= row <= top and row + side <= height and 0 <= column <= left and column + side <= width
        count[top:row + side, left:column + side] += 1
    assert (count == 1).all()


def test_windows_of_a_dpdd_frame():
    assert len(list(windows(1120, 1680, 512))) == 12
    assert len(list(windows(720, 1280, 256))) == 15


@pytest.mark.parametrize("batch", [1, 2])
def test_windowed_image_is_its_windows(batch):
    whole, windowed = build(), build(window=8)
    image = random(batch, 3, 19, 21)
    with torch.inference_mode():
        found = windowed.restore(image)
        torch.testing.assert_close(found[..., 8:16, :8], whole.restore(image[..., 8:16, :8]))
        corner = whole.restore(image[..., 11:19, 13:21])
    torch.testing.assert_close(found[..., 16:, 16:], corner[..., 5:, 3:])


def test_small_images_are_padded_to_a_window():
    model = build(window=16)
    assert model.size_rule.accepts(17, 16) and not model.size_rule.accepts(15, 40)
    with torch.inference_mode():
        assert model(random(1, 6, 9, 21)).shape == (1, 3, 9, 21)


def test_training_gives_three_scales():
    batch = {"lq": random(2, 6, 20, 28), "gt": random(2, 3, 20, 28)}
    for cls in (DeepRFT, DeepRFTDual):
        prediction = build(cls).train().training_outputs(batch)
        assert prediction["restored"].shape == (2, 3, 20, 28)
        assert [s.shape for s in prediction["scales"]] == [(2, 3, 10, 14), (2, 3, 5, 7)]


@pytest.mark.parametrize("arguments, message", [({"num_res": 0}, "num_res"), ({"base_channels": 5}, "even"),
                                                ({"window": 10}, "multiple of 4")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        DeepRFT(**arguments)


@pytest.mark.parametrize("folded", [False, True])
def test_official_files_in_both_forms(folded):
    known = official_format("deeprft")
    model = build(num_res=2)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value += 0.01 * random(*value.shape, seed=len(name))
    official = known.to_official(model.state_dict())
    assert {"Encoder.0.layers.1.main.0.main.0.D_diag", "SCM1.main.3.main.0.W",
            "feat_extract.3.main.0.weight"} <= set(official)
    if folded:
        official = known.fold(official)
        assert not any(key.endswith("D") for key in official)
    network, settings = known.recognise({k: tuple(v.shape) for k, v in official.items()})
    assert (network, settings) == ("deeprft", {"num_res": 2, "base_channel": 4, "win_size": 512})
    other = known.build({**settings, "win_size": None}, network).double()
    known.load(other, {k: v.numpy() for k, v in official.items()}, network)
    image = random(1, 3, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(other.restore(image), model.restore(image), rtol=1e-12, atol=1e-12)
    assert official_format("deeprft").recognise({"head.0.weight": (64, 6, 3, 3)}) is None
