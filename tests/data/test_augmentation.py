"""The physics of `dp_safe`: blurring a pair commutes with its flips exactly, with quarter turns it does not."""
import numpy as np
import pytest

from k3dn_plugin.data.augmentation import AUGMENTATIONS, Symmetry

RADIUS = 4


def half_discs():
    """`{view: kernel}`: light through the left half of the lens, and its mirror image; odd size, sum 1."""
    rows, columns = np.mgrid[-RADIUS:RADIUS + 1, -RADIUS:RADIUS + 1]
    left = ((rows**2 + columns**2 <= RADIUS**2) & (columns <= 0)).astype(float)
    return {"left": left / left.sum(), "right": left[:, ::-1] / left.sum()}


def blur(scene, kernel):
    """Circular convolution by shifting and adding: no border, and as exact under mirrors as addition is."""
    total = np.zeros_like(scene)
    for i, j in np.argwhere(kernel):
        total += kernel[i, j] * np.roll(scene, (i - RADIUS, j - RADIUS), (0, 1))
    return total


def pair_of(scene):
    return {view: blur(scene, kernel) for view, kernel in half_discs().items()}


def largest_difference(symmetry, scene):
    """Between augmenting the blurred pair and blurring the augmented scene with the same kernels."""
    augmented = symmetry.apply(pair_of(scene))
    expected = pair_of(symmetry.apply({"sharp": scene})["sharp"])
    return max(np.abs(augmented[view] - expected[view]).max() for view in expected)


@pytest.fixture
def scene():
    return np.random.default_rng(0).random((40, 40))


def test_the_views_of_the_test_scene_do_differ(scene):
    pair = pair_of(scene)
    assert np.abs(pair["left"] - pair["right"]).max() > 0.1


@pytest.mark.parametrize("symmetry", AUGMENTATIONS["dp_safe"])
def test_dp_safe_makes_pairs_that_the_lens_could_have_taken(scene, symmetry):
    assert largest_difference(symmetry, scene) < 1e-12


@pytest.mark.parametrize("symmetry", [Symmetry(flip_columns=True), Symmetry(transpose=True),
                                      Symmetry(flip_rows=True, exchange_views=True),
                                      Symmetry(transpose=True, flip_rows=True),
                                      Symmetry(transpose=True, flip_columns=True, exchange_views=True)])
def test_other_symmetries_do_not(scene, symmetry):
    assert largest_difference(symmetry, scene) > 0.05


def test_blind_symmetries_are_half_wrong(scene):
    wrong = [largest_difference(symmetry, scene) > 0.05 for symmetry in AUGMENTATIONS["legacy8"]]
    assert sum(wrong) == 6  # all but the identity and the vertical flip


@pytest.mark.parametrize("symmetry", AUGMENTATIONS["dp_safe"])
@pytest.mark.parametrize("disparity", [-3, 5])
def test_a_disparity_map_keeps_its_sign(symmetry, disparity):
    """Views of a plane at one disparity d = x_R - x_L, augmented, are still that far apart."""
    scene = np.random.default_rng(1).random((20, 40))
    frames = {"left": scene, "right": np.roll(scene, disparity, 1),
              "disparity": np.full((20, 40), float(disparity))}
    moved = symmetry.apply(frames)
    np.testing.assert_array_equal(np.roll(moved["left"], int(moved["disparity"][0, 0]), 1), moved["right"])


@pytest.mark.parametrize("symmetry", AUGMENTATIONS["dp_safe"])
def test_a_blur_map_keeps_its_sign(symmetry):
    """Two planes of opposite sign side by side: where the map says near, the pair is blurred as near."""
    scene = np.random.default_rng(2).random((24, 60))
    kernels = half_discs()
    near, far = pair_of(scene), {"left": blur(scene, kernels["right"]), "right": blur(scene, kernels["left"])}
    columns = np.arange(60) < 30
    frames = {view: np.where(columns, near[view], far[view]) for view in near}
    frames |= {"sharp": scene, "defocus": np.where(columns, -RADIUS, RADIUS) * np.ones((24, 60))}
    moved = symmetry.apply(frames)
    near, far = pair_of(moved["sharp"]), {v: blur(moved["sharp"], kernels[w]) for v, w in
                                          (("left", "right"), ("right", "left"))}
    for view in ("left", "right"):
        expected = np.where(moved["defocus"] < 0, near[view], far[view])
        np.testing.assert_allclose(moved[view], expected, atol=1e-12)


def test_the_eight_symmetries_are_all_different_and_complete():
    square = np.arange(9).reshape(3, 3)
    seen = {symmetry.apply({"left": square})["left"].tobytes() for symmetry in AUGMENTATIONS["legacy8"]}
    turns = {np.rot90(m, k).tobytes() for m in (square, square.T) for k in range(4)}
    assert seen == turns and len(seen) == 8


def test_channels_stay_last():
    frame = np.arange(24).reshape(2, 4, 3)
    turned = Symmetry(transpose=True, flip_rows=True).apply({"left": frame})["left"]
    np.testing.assert_array_equal(turned[..., 1], frame[..., 1].T[::-1])
