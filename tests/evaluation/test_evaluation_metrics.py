"""The metrics against formulas written out here, and against the libraries that papers used."""
import math

import numpy as np
import pytest
import torch

from k3dn_plugin.errors import SizeError
from k3dn_plugin.registry import METRICS

IMAGE_METRICS = ("psnr", "mae", "ssim_uniform7", "ssim_gaussian11", "relative_rmse")
UNITS = {"psnr": "dB", "relative_rmse": "%"}


def images(height=33, width=40, noise=0.1):
    gt = torch.rand(3, height, width)
    return (gt + noise * torch.randn(3, height, width)).clamp(0, 1), gt


def test_every_registered_metric_is_tested():
    elsewhere = {"lpips_alex", "lpips_squeeze", "dists"}
    homes = {name: METRICS.get(name).__module__ for name in METRICS.names()}
    ours = {name for name, home in homes.items() if home.startswith("k3dn_plugin.")}
    assert ours == {*IMAGE_METRICS, *elsewhere}


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_smoke(name):
    metric = METRICS.build({"type": name})
    restored, gt = images()
    value = metric(restored, gt)
    assert isinstance(value, float) and math.isfinite(value)
    assert metric.unit == UNITS.get(name, "")
    worse, _ = images(noise=0.3)
    better_is_better = metric(gt, gt) > value if metric.higher_is_better else metric(gt, gt) < value
    assert better_is_better


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_cardinality(name):
    metric = METRICS.build({"type": name})
    first, second = images(), images(noise=0.02)
    batch = metric(torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]]))
    assert batch == pytest.approx((metric(*first) + metric(*second)) / 2, abs=1e-12)


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_exception(name):
    metric = METRICS.build({"type": name})
    with pytest.raises(SizeError, match=r"\(3, 8, 9\).*\(3, 9, 8\)"):
        metric(torch.rand(3, 8, 9), torch.rand(3, 9, 8))
    with pytest.raises(SizeError, match="at least one pixel"):
        metric(torch.rand(3, 0, 9), torch.rand(3, 0, 9))
    with pytest.raises(SizeError, match="at least one pixel"):
        metric(torch.rand(8, 9), torch.rand(8, 9))


def test_psnr_formula_in_double_precision():
    restored, gt = images()
    error = restored.numpy().astype(np.float64) - gt.numpy().astype(np.float64)
    assert METRICS.build({"type": "psnr"})(restored, gt) == pytest.approx(
        10 * math.log10(1 / np.mean(error ** 2)), abs=1e-12)


def test_psnr_of_identical_images():
    _, gt = images()
    assert METRICS.build({"type": "psnr"})(gt, gt) == 100
    assert METRICS.build({"type": "psnr", "identical": math.inf})(gt, gt) == math.inf


def test_psnr_does_not_quantise():
    gt = torch.full((3, 16, 16), 0.5)
    assert METRICS.build({"type": "psnr"})(gt + 1e-4, gt) == pytest.approx(80, abs=1e-2)


def test_mae_formula():
    restored, gt = images()
    a, b = restored.double().numpy(), gt.double().numpy()
    expected = np.mean([np.abs(a[c] - b[c]).mean() for c in range(3)])
    assert METRICS.build({"type": "mae"})(restored, gt) == pytest.approx(expected, abs=1e-12)


def ssim(a, b, kernel, covariance_factor):
    """SSIM of two (H, W) arrays by explicit window sums, for windows that lie inside the image."""
    size = kernel.shape[0]
    windows_a, windows_b = (np.lib.stride_tricks.sliding_window_view(i, (size, size)) for i in (a, b))
    mean_a, mean_b = (np.einsum("ijkl,kl->ij", w, kernel) for w in (windows_a, windows_b))
    moments = [np.einsum("ijkl,kl->ij", x * y, kernel) for x, y in (
        (windows_a, windows_a), (windows_b, windows_b), (windows_a, windows_b))]
    var_a, var_b, cov = (covariance_factor * (m - p) for m, p in zip(
        moments, (mean_a ** 2, mean_b ** 2, mean_a * mean_b)))
    c1, c2 = 0.01 ** 2, 0.03 ** 2
    return np.mean((2 * mean_a * mean_b + c1) * (2 * cov + c2)
                   / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2)))


def gaussian_window():
    x = np.arange(11) - 5
    line = np.exp(-x ** 2 / (2 * 1.5 ** 2))
    return np.outer(line, line) / line.sum() ** 2


@pytest.mark.parametrize("name, kernel, factor", [
    ("ssim_uniform7", np.full((7, 7), 1 / 49), 49 / 48),
    ("ssim_gaussian11", gaussian_window(), 1.0),
])
def test_ssim_formula(name, kernel, factor):
    restored, gt = (image.double() for image in images())
    expected = np.mean([ssim(gt[c].numpy(), restored[c].numpy(), kernel, factor) for c in range(3)])
    assert METRICS.build({"type": name})(restored, gt) == pytest.approx(expected, abs=1e-6)


def test_ssim_needs_a_window():
    with pytest.raises(SizeError, match="11 x 11"):
        METRICS.build({"type": "ssim_gaussian11"})(torch.rand(3, 10, 30), torch.rand(3, 10, 30))
