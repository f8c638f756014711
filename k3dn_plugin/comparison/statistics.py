"""Is one restorer better than another, and how sure can one be?

Scores are a table of training seeds by images. What is claimed decides what is drawn anew: of *these weights* (one
seed each) the images alone; of *a method* (several seeds) the seeds and the images, in two levels. The interval is
the bootstrap's percentile interval with its known narrowness taken out ("expanded percentiles", Hesterberg, What
Teachers Should Know about the Bootstrap, 2015); below `FEW` degrees of freedom, where percentiles are too coarse, it
is Student's interval on the same error. Degrees of freedom are Satterthwaite's over the levels.
"""
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

SAMPLES = 10_000
LEVEL = 0.95
FEW = 9        # degrees of freedom below which Student's interval is taken
SMALL = 10     # images below which the report warns

Scores = Mapping[str, float | Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Attributes:
        mean: over seeds and images.
        low, high: of the interval; NaN where a single value allows none.
        error: the mean's standard error; NaN likewise.
        freedom: degrees of freedom behind the error; infinity where nothing varies.
        images, seeds: how many there are, the seeds one number a method.
        kind: "bootstrap" or "t", how the interval was made.
    """

    mean: float
    low: float
    high: float
    error: float
    freedom: float
    images: int
    seeds: tuple[int, ...]
    kind: str

    @property
    def p_value(self) -> float:
        """Two-sided probability of a mean at least so far from 0 where the true one is 0 (Student's t)."""
        if self.mean == 0:
            return 1.0
        if not math.isfinite(self.error):
            return 1.0
        if self.error == 0:
            return 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))


@dataclass(frozen=True)
class PairedDifference:
    """How a contestant differs from the reference in one metric, image by image.

    Attributes:
        interval: of the mean difference, contestant minus reference.
        wins, losses, ties: images on which the contestant (mean over its seeds) is better, worse, the same.
        p_value: of the test, before any correction. One seed each: the sign test over images. Several: Student's
            test over seeds and images, since images that share a seed do not win or lose independently.
        test: "sign" or "t".
        adjusted: `p_value` corrected for all rivals of the reference (Holm); None before `holm`.
        identical: whether both have the same weights and settings, so that nothing is compared.
        largest: names of the images that differ most, by absolute difference.
        differences: by image, for the plot.
    """

    interval: Interval
    wins: int
    losses: int
    ties: int
    p_value: float
    test: str
    largest: tuple[str, ...]
    differences: Mapping[str, float]
    adjusted: float | None = None
    identical: bool = False

    @property
    def mean(self) -> float:
        """The mean difference."""
        return self.interval.mean

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.interval.low

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.interval.high

    @property
    def different(self) -> bool:
        """Whether the test, corrected for all rivals, finds a difference at the 5 % level."""
        p_value = self.p_value if self.adjusted is None else self.adjusted
        return not self.identical and p_value < 1 - LEVEL

    @property
    def disagrees(self) -> bool:
        """Whether interval and (corrected) test say different things about a difference from 0."""
        excludes_zero = self.low > 0 or self.high < 0
        return not self.identical and excludes_zero != self.different

    def of_methods(self) -> bool:
        """Whether several seeds stand behind each side, so that the claim may be of methods."""
        return min(self.interval.seeds) > 1


def paired_difference(scores: Scores, reference: Scores, *, higher_is_better: bool = True, seed: int = 0,
                      samples: int = SAMPLES, largest: int = 3, identical: bool = False) -> PairedDifference:
    """Compare two contestants on the images that both have.

    Args:
        scores, reference: the metric by image; a number, or a sequence with one number a training seed.
        seed: of the bootstrap's draws.
        identical: both have the same weights and settings.

    Raises:
        ValueError: they share no image, or the images of one have different numbers of seeds.
    """
    names = [name for name in scores if name in reference]
    if not names:
        raise ValueError("no image was scored for both")
    ours, theirs = table_of(scores, names), table_of(reference, names)
    interval = two_level_interval(ours, theirs, seed=seed, samples=samples)
    differences = ours.mean(0) - theirs.mean(0)
    better = differences if higher_is_better else -differences
    wins, losses = int((better > 0).sum()), int((better < 0).sum())
    several = len(ours) > 1 or len(theirs) > 1
    order = np.argsort(-np.abs(differences), kind="stable")[:largest]
    return PairedDifference(
        interval, wins, losses, len(names) - wins - losses,
        interval.p_value if several else sign_test(wins, losses), "t" if several else "sign",
        tuple(names[i] for i in order), dict(zip(names, differences.tolist(), strict=True)), identical=identical)


def table_of(scores: Scores, names: Sequence[str]) -> np.ndarray:
    """Return (seeds, images): the scores of `names` as an array.

    Raises:
        ValueError: the images have different numbers of seeds.
    """
    rows = [np.atleast_1d(np.asarray(scores[name], dtype=float)) for name in names]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("every image needs a score from every seed")
    return np.stack(rows, 1)


def two_level_interval(scores: np.ndarray, reference: np.ndarray | None = None, *, seed: int = 0,
                       samples: int = SAMPLES, level: float = LEVEL) -> Interval:
    """Return the interval of a mean over seeds and images, or of a difference of two such means.

    Seeds of either side and images are drawn anew with replacement, the same images for both sides. One seed is
    taken as it is: the interval is then of these weights.

    Args:
        scores: (seeds, images). reference: (seeds, images) on the same images, or None.
        seed, samples: of the bootstrap.
    """
    sides = [np.asarray(side, dtype=float) for side in (scores, reference) if side is not None]
    count = sides[0].shape[1]
    over_images = sides[0].mean(0) - (sides[1].mean(0) if len(sides) > 1 else 0)
    mean = float(over_images.mean())
    seeds = tuple(len(side) for side in sides)
    terms = [(float(side.mean(1).var(ddof=1)) / len(side), len(side) - 1) for side in sides if len(side) > 1]
    if count > 1:
        # What differs from seed to seed on one image is in the seeds' variance already.
        inner = sum(_interaction(side) / len(side) for side in sides)
        terms.append((max(float(over_images.var(ddof=1)) - inner, 0.0) / count, count - 1))
    if not terms:
        return Interval(mean, math.nan, math.nan, math.nan, 0.0, count, seeds, "t")
    variance = sum(value for value, _ in terms)
    # Equal numbers leave a variance of rounding; such values do not vary.
    if variance <= (1e-12 * max(abs(float(np.abs(side).max())) for side in sides)) ** 2:
        return Interval(mean, mean, mean, 0.0, math.inf, count, seeds, "t")
    freedom = variance ** 2 / sum(value ** 2 / free for value, free in terms)
    error, quantile = math.sqrt(variance), float(stats.t.ppf((1 + level) / 2, freedom))
    if freedom < FEW:
        return Interval(mean, mean - quantile * error, mean + quantile * error, error, freedom, count, seeds, "t")
    drawn = _draws(sides, np.random.default_rng(seed), samples)
    tail = float(stats.norm.cdf(-quantile * error / drawn.std()))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(mean, float(low), float(high), error, freedom, count, seeds, "bootstrap")


def _interaction(side: np.ndarray) -> float:
    """Return the variance of (seeds, images) that neither seeds nor images explain; 0 for one seed."""
    if len(side) < 2:
        return 0.0
    rest = side - side.mean(0) - side.mean(1, keepdims=True) + side.mean()
    return float((rest ** 2).sum() / ((len(side) - 1) * (side.shape[1] - 1)))


def _draws(sides: Sequence[np.ndarray], draw: np.random.Generator, samples: int) -> np.ndarray:
    """(samples,) means under drawing seeds and images anew."""
    count, found = sides[0].shape[1], []
    for start in range(0, samples, 1000):
        size = min(1000, samples - start)
        images = draw.multinomial(count, np.full(count, 1 / count), size) / count
        means = np.zeros(size)
        for sign, side in zip((1, -1), sides, strict=False):
            seeds = draw.multinomial(len(side), np.full(len(side), 1 / len(side)), size) / len(side)
            means += sign * ((seeds @ side) * images).sum(1)
        found.append(means)
    return np.concatenate(found)


def bootstrap_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0, samples: int = SAMPLES,
                       level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the mean of `values`; see `two_level_interval`."""
    found = two_level_interval(np.asarray(values, dtype=float)[None], seed=seed, samples=samples, level=level)
    return found.low, found.high


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided exact probability of a split at least so uneven, each side being equally likely."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(differences: Mapping[str, PairedDifference]) -> dict[str, PairedDifference]:
    """Correct the p-values of all rivals of one reference (Holm, Scandinavian Journal of Statistics 1979).

    Rivals with identical weights are no hypotheses and are left out of the count.
    """
    tested = sorted((name for name, one in differences.items() if not one.identical),
                    key=lambda name: differences[name].p_value)
    adjusted, largest = dict.fromkeys(differences, 1.0), 0.0
    for rank, name in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * differences[name].p_value))
        adjusted[name] = largest
    return {name: replace(one, adjusted=adjusted[name]) for name, one in differences.items()}


def spread(values: Iterable[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation over seeds (None for one seed)."""
    found = np.asarray(list(values), dtype=float)
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else None
