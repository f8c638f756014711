"""Claims by simulation: how often equal methods come out different, how often intervals hold, what findings say."""
import numpy as np
import pytest

from k3dn_plugin.comparison.statistics import bootstrap_interval, holm, paired_difference, two_level_interval
from k3dn_plugin.comparison.tables import finding

IMAGES = 76


def methods(draw, seeds, spread=0.1, images=IMAGES):
    """Two equal methods: (seeds, images) each, with what images, trainings and both together vary by."""
    common = draw.normal(26, 3, images)
    return [common + draw.normal(0, spread, (count, 1)) + draw.normal(0, 0.15, (count, images)) for count in seeds]


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (5, 5), (2, 5)])
def test_equal_methods_come_out_different_in_about_five_percent(seeds):
    draw, trials, found = np.random.default_rng(3), 400, []
    for _ in range(trials):
        interval = two_level_interval(*methods(draw, seeds), samples=400)
        found.append([interval.p_value < 0.05, interval.low > 0 or interval.high < 0])
    test, excluded = np.mean(found, 0)
    assert 0.005 <= test <= 0.09 and 0.005 <= excluded <= 0.09
    # The images alone, as with one seed each, would find a difference in far more trials.
    images_alone = [two_level_interval((one.mean(0) - other.mean(0))[None], samples=400).p_value < 0.05
                    for one, other in (methods(draw, seeds) for _ in range(100))]
    assert np.mean(images_alone) > 0.3


@pytest.mark.parametrize("count", [3, 8, 20, IMAGES])
def test_intervals_hold_as_often_as_they_say(count):
    draw = np.random.default_rng(5)
    held = [low <= 0 <= high for low, high in
            (bootstrap_interval(draw.normal(0, 1, count), samples=400) for _ in range(400))]
    assert 0.92 <= np.mean(held) <= 0.985


def test_a_true_difference_is_found():
    draw = np.random.default_rng(1)
    ours, theirs = methods(draw, (3, 3), spread=0.02)
    names = [f"image {i}" for i in range(IMAGES)]
    one = paired_difference(dict(zip(names, (ours + 0.5).T.tolist(), strict=True)),
                            dict(zip(names, theirs.T.tolist(), strict=True)))
    assert one.different and one.test == "t" and one.mean == pytest.approx(0.5, abs=0.1)
    assert finding(one, "psnr") == "better (as a method)" and finding(one, "mae") == "worse (as a method)"


def difference(values, **more):
    names = [f"image {i}" for i in range(len(values))]
    return paired_difference(dict(zip(names, values, strict=True)), dict.fromkeys(names, 0.0), **more)


def test_holm_corrects_for_the_number_of_rivals():
    sure = difference([0.1] * 9 + [-0.1])          # p = 0.0215
    found = holm({"a": sure, "b": sure, "c": difference([0.1, -0.1] * 5)})
    assert sure.different and not found["a"].different
    assert found["a"].adjusted == pytest.approx(3 * sure.p_value)
    assert found["b"].adjusted == found["a"].adjusted and found["c"].adjusted == 1
    twins = holm({"a": sure, "twin": difference([0.0] * 10, identical=True)})
    assert twins["a"].different, "identical weights are no hypothesis"
    assert finding(twins["twin"], "psnr") == "identical weights and settings"


def test_disagreement_is_stated():
    one = difference([5.0, 5.1, 5.2, 4.9, 5.0])     # the sign test can't be sure of five images
    assert one.low > 0 and not one.different and one.disagrees
    assert finding(one, "psnr") == "no difference shown, though the interval excludes 0 (for these weights)"


def test_a_finding_of_the_sign_test_says_what_most_images_say():
    most = difference([0.5] * 21 + [-9.0] * 3)
    assert most.different and most.mean < 0
    assert finding(most, "psnr") == "better on most images, not in the mean (for these weights)"
    few = difference([-0.5] * 21 + [9.0] * 3)
    assert finding(few, "psnr") == "worse on most images, not in the mean (for these weights)"
    errors = difference([-0.5] * 21 + [9.0] * 3, higher_is_better=False)
    assert errors.wins == 21 and finding(errors, "mae") == "better on most images, not in the mean (for these weights)"


def test_one_image_has_no_interval_and_equal_scores_no_difference():
    alone = difference([1.0])
    assert np.isnan(alone.low) and alone.p_value == 1 and not alone.different and not alone.disagrees
    equal = difference([0.0] * 12)
    assert (equal.low, equal.mean, equal.high, equal.p_value) == (0, 0, 0, 1) and equal.ties == 12
