"""Scores of a disparity, defocus or depth map whose scale and offset are unknown.

Garg et al. (Learning single camera depth estimation using dual-pixels, ICCV 2019, section 5): a dual-pixel
disparity is known up to an affine map, so the best one is fitted before the error is taken. On DPD-disp the
truth is the inverse depth.
"""
from typing import Any

import torch

from k3dn_plugin.errors import SizeError
from k3dn_plugin.evaluation.metrics.base import Metric
from k3dn_plugin.registry import MAP_METRICS

ROUNDS = 100
TINY = 1e-6


class MapMetric(Metric):
    """A score of a map against the true one: `metric(predicted, truth, mask=None) -> float`.

    Maps are (1, H, W), or (B, 1, H, W) for the mean of their scores; `mask` is True where the truth is
    valid; values that are not finite are left out too.

    Raises:
        SizeError: the shapes differ, there is more than one channel (a picture is no map), or fewer than two pixels are
            valid.
    """

    higher_is_better = False

    def __call__(self, predicted: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> float:
        """Return the score of one map, or the mean of a batch's."""
        mask = torch.ones_like(truth, dtype=torch.bool) if mask is None else mask.bool()
        if not predicted.shape == truth.shape == mask.shape or truth.ndim not in (3, 4) \
                or truth.shape[-3] != 1:
            raise SizeError("a map's score needs map, truth and mask of one shape (1, H, W); found "
                            f"{tuple(predicted.shape)}, {tuple(truth.shape)}, {tuple(mask.shape)}")
        shape = (-1, truth.shape[-2] * truth.shape[-1])
        predicted, truth = (values.detach().double().reshape(shape) for values in (predicted, truth))
        scores = []
        for x, y, valid in zip(predicted, truth, mask.reshape(shape), strict=True):
            valid = valid & x.isfinite() & y.isfinite()
            if valid.sum() < 2:
                raise SizeError("a map's score needs at least two valid pixels; check the mask and the truth")
            scores.append(self.score(x[valid], y[valid]))
        return float(sum(scores) / len(scores))


@MAP_METRICS.register_module(name="ai1")
class AffineInvariantMAE(MapMetric):
    """AI(1): the smallest mean |a x + b - y| over all a, b, by iteratively reweighted least squares."""

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the score of valid values, both (N,)."""
        weights = torch.ones_like(gt)
        best = torch.inf
        for _ in range(ROUNDS):
            error = (affine_fit(restored, gt, weights) - gt).abs()
            if error.mean() > best - 1e-12:
                break
            best = error.mean()
            weights = 1 / error.clamp(min=TINY * float(gt.std() + TINY))
        return float(best)


@MAP_METRICS.register_module(name="ai2")
class AffineInvariantRMSE(MapMetric):
    """AI(2): the smallest root mean square of a x + b - y over all a, b."""

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the score of valid values, both (N,)."""
        return float((affine_fit(restored, gt, torch.ones_like(gt)) - gt).square().mean().sqrt())


@MAP_METRICS.register_module(name="spearman")
class SpearmanDistance(MapMetric):
    """1 - |rank correlation|: 0 where the order of the values, or its reverse, is right everywhere."""

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the score of valid values, both (N,)."""
        from scipy.stats import spearmanr  # slow to import
        if restored.min() == restored.max() or gt.min() == gt.max():
            return 1.0  # a constant orders nothing
        found: Any = spearmanr(restored.cpu().numpy(), gt.cpu().numpy())
        return 1 - abs(float(found.statistic))


def affine_fit(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A x + b with the a, b that minimise the weighted squares of a x + b - y; all (N,)."""
    total = weights.sum()
    mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
    spread = (weights * (x - mean_x) ** 2).sum()
    slope = (weights * (x - mean_x) * (y - mean_y)).sum() / spread if spread > 0 else 0.0
    return slope * (x - mean_x) + mean_y
