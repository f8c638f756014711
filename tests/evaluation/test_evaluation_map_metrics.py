"""AI(1), AI(2) and rank correlation: invariances, and independent minimisation."""
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import rankdata

from k3dn_plugin.errors import SizeError
from k3dn_plugin.registry import MAP_METRICS

NAMES = ("ai1", "ai2", "spearman")


def maps(seed=0, noise=0.3):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(1, 12, 15, generator=generator) * 5
    return 0.4 * truth - 2 + noise * torch.randn(1, 12, 15, generator=generator), truth


@pytest.mark.parametrize("name", NAMES)
def test_affine_maps_are_perfect(name):
    _, truth = maps()
    metric = MAP_METRICS.build({"type": name})
    assert metric(-3 * truth + 7, truth) == pytest.approx(0, abs=1e-6)
    assert not metric.higher_is_better
    assert metric(torch.ones_like(truth), truth) > 0.5  # a constant knows nothing


@pytest.mark.parametrize("name", NAMES)
def test_mask_and_values_that_are_not_finite_are_left_out(name):
    predicted, truth = maps()
    metric = MAP_METRICS.build({"type": name})
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[:, 3:6] = False
    expected = metric(*(torch.cat([one[:, :3], one[:, 6:]], 1) for one in (predicted, truth)))
    spoilt = truth.clone()
    spoilt[:, 3:6] = 1000
    assert metric(predicted, spoilt, valid) == pytest.approx(expected, abs=1e-9)
    spoilt[:, 3:6] = torch.nan
    assert metric(predicted, spoilt) == pytest.approx(expected, abs=1e-9)
    both = metric(torch.stack([predicted, predicted]), torch.stack([spoilt, truth]))
    assert both == pytest.approx((expected + metric(predicted, truth)) / 2, abs=1e-9)


@pytest.mark.parametrize("name, power", [("ai1", 1), ("ai2", 2)])
def test_best_affine_map_by_another_minimiser(name, power):
    predicted, truth = maps()
    x, y = predicted.double().numpy().ravel(), truth.double().numpy().ravel()

    def error(ab):
        return np.mean(np.abs(ab[0] * x + ab[1] - y) ** power) ** (1 / power)
    best = min(minimize(error, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}).fun
               for start in ((1, 0), (2, 4)))
    assert MAP_METRICS.build({"type": name})(predicted, truth) == pytest.approx(best, rel=1e-4)


def test_spearman_formula():
    predicted, truth = maps(noise=1.0)
    ranks = [rankdata(m.numpy().ravel()) for m in (predicted, truth)]
    expected = 1 - abs(np.corrcoef(ranks[0], ranks[1])[0, 1])
    assert MAP_METRICS.build({"type": "spearman"})(-predicted, truth) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_exception(name):
    predicted, truth = maps()
    metric = MAP_METRICS.build({"type": name})
    with pytest.raises(SizeError, match=r"one shape.*\(1, 12, 14\)"):
        metric(predicted[..., :14], truth)
    with pytest.raises(SizeError, match="two valid pixels"):
        metric(predicted, truth, torch.zeros_like(truth, dtype=torch.bool))
