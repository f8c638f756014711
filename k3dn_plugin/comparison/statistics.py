"""Is one restorer better than another, and how sure can one be? Paired over images, spread over seeds."""
import math
from dataclasses import dataclass

import numpy as np

SAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """How a contestant differs from the reference in one metric, image by image.

    Attributes:
        mean, low, high: of the differences, with the bootstrap interval of the mean (95 %).
        wins, losses, ties: images on which the contestant is better, worse, the same.
        p_value: two-sided sign test: how likely so uneven a split is where neither is better.
        largest: names of the images that differ most, by absolute difference.
    """

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p_value: float
    largest: tuple[str, ...]


def paired_difference(scores: dict[str, float], reference: dict[str, float], *, higher_is_better: bool = True,
                      seed: int = 0, samples: int = SAMPLES, largest: int = 3) -> PairedDifference:
    """Compare two contestants on the images that both have.

    Args:
        scores, reference: the metric by image.
        seed: of the bootstrap, which draws images with replacement.

    Raises:
        ValueError: they share no image.
    """
    names = [name for name in scores if name in reference]
    if not names:
        raise ValueError("no image was scored for both")
    differences = np.array([scores[name] - reference[name] for name in names])
    low, high = bootstrap_interval(differences, seed=seed, samples=samples)
    better = differences if higher_is_better else -differences
    wins, losses = int((better > 0).sum()), int((better < 0).sum())
    order = np.argsort(-np.abs(differences), kind="stable")[:largest]
    return PairedDifference(float(differences.mean()), low, high, wins, losses, len(names) - wins - losses,
                            sign_test(wins, losses), tuple(names[i] for i in order))


def bootstrap_interval(values, *, seed: int = 0, samples: int = SAMPLES, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean of `values` under drawing them anew with replacement."""
    values = np.asarray(values, dtype=float)
    draw = np.random.default_rng(seed)
    means = [values[draw.integers(0, len(values), (min(samples, 1000), len(values)))].mean(1)
             for _ in range(-(-samples // 1000))]
    low, high = np.quantile(np.concatenate(means), ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact probability of a split at least so uneven, each side being equally likely."""
    count = wins + losses
    if count == 0:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1)) / 2 ** count
    return min(1.0, 2 * tail)


def spread(values) -> tuple[float, float | None]:
    """Mean and standard deviation over seeds (None for one seed)."""
    values = np.asarray(list(values), dtype=float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
