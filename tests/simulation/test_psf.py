"""The kernels of both views: every family is asked the same physics."""
import dataclasses

import numpy as np
import pytest
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.optics import blur_radius, blur_radius_from_disparity
from k3dn_plugin.simulation.psf import PsfSettings, centroid_gap, kernel_pair

RADII = (-7.3, -3.0, -1.1, 0.2, 1.1, 3.0, 7.3)


def centroid(kernel):
    offsets = torch.arange(kernel.shape[-1]) - kernel.shape[-1] // 2
    return float((kernel * offsets).sum())


@pytest.mark.parametrize("family", PSF_FAMILIES.names())
class TestEveryFamily:
    @pytest.mark.parametrize("radius", RADII)
    def test_kernels_keep_the_light(self, family, radius):
        pair = kernel_pair(radius, PsfSettings(family=family, tilt=0.3, aspect=1.1))
        for kernel in pair:
            assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
            assert float(kernel.min()) >= 0

    @pytest.mark.parametrize("radius", RADII)
    def test_views_are_mirror_images(self, family, radius):
        pair = kernel_pair(radius, PsfSettings(family=family))
        torch.testing.assert_close(pair.right, pair.left.flip(1))

    @pytest.mark.parametrize("radius", RADII)
    def test_the_other_side_of_focus_swaps_the_views(self, family, radius):
        one = kernel_pair(radius, PsfSettings(family=family, tilt=0.2))
        other = kernel_pair(-radius, PsfSettings(family=family, tilt=0.2))
        torch.testing.assert_close(one.left, other.right, rtol=0, atol=0)

    @pytest.mark.parametrize("separation", [0.0, 0.5, 1.0])
    def test_the_sum_of_the_views_does_not_depend_on_their_separation(self, family, separation):
        whole = kernel_pair(4.0, PsfSettings(family=family, separation=1.0)).center
        torch.testing.assert_close(kernel_pair(4.0, PsfSettings(family=family, separation=separation)).center, whole)

    def test_right_view_lies_right_beyond_focus_and_grows_linearly(self, family):
        radii = np.array([2.0, 4.0, 6.0, 8.0, 10.0])
        gaps = [centroid(p.right) - centroid(p.left)
                for p in (kernel_pair(r, PsfSettings(family=family)) for r in radii)]
        assert min(gaps) > 0
        slope, offset = np.polyfit(radii, gaps, 1)
        assert slope > 0.3 and abs(offset) < 1e-3
        assert np.allclose(gaps, slope * radii, atol=1e-3)

    def test_separation_scales_the_gap(self, family):
        full, half = (kernel_pair(6.0, PsfSettings(family=family, separation=s)) for s in (1.0, 0.5))
        assert centroid(half.right) == pytest.approx(centroid(full.right) / 2, rel=1e-4)

    def test_in_focus_is_a_point(self, family):
        pair = kernel_pair(0.0, PsfSettings(family=family))
        assert float(pair.left.max()) == 1 and float(pair.right.max()) == 1

    def test_the_shift_is_proportional_to_the_radius_from_nought_on(self, family):
        settings = PsfSettings(family=family, separation=1.0)
        radii = (-9.7, -0.6, -0.01, 0.05, 0.3, 0.49, 0.51, 0.75, 1.0, 2.6, 12.0)
        ratios = [centroid_gap(radius, settings) / radius for radius in radii]
        assert ratios == pytest.approx([ratios[-1]] * len(radii), rel=1e-4)
        # The density itself, summed finely: nothing of the kernels in it.
        line = (torch.arange(600, dtype=torch.float64) + 0.5) / 300 - 1
        y, x = torch.meshgrid(4 * line, 4 * line, indexing="ij")
        density = PSF_FAMILIES.get(family)(x, y, 4.0, {})
        assert ratios[0] == pytest.approx(float(-2 * (density * x).sum() / density.sum()) / 4, rel=0.01)

    @pytest.mark.parametrize("lens", [{}, {"tilt": 0.5}, {"field_tilt": 0.8, "position": (0.7, 0.0)}])
    def test_kernels_change_continuously(self, family, lens):
        """A step of 0.02 px moves as little light, wherever it is taken: no jump, at 0.5 px or elsewhere."""
        settings = PsfSettings(family=family, **lens)
        for first in (0.0, 0.1, 0.49, 0.99, 1.99, 5.49):
            one, other = (kernel_pair(r, settings, size=21) for r in (first, first + 0.02))
            assert float((one.left - other.left).abs().sum()) < 0.06

    def test_the_pair_stays_where_the_point_is(self, family):
        for lens in ({"tilt": 0.7}, {"field_tilt": 0.8, "position": (-0.9, 0.0)}):
            pair = kernel_pair(7.3, PsfSettings(family=family, **lens))
            assert abs(centroid(pair.center)) < 1e-4


    def test_the_left_view_stays_where_the_point_is(self, family):
        """Aligned with it, for any asymmetry; the distance of the views is the same."""
        pixels = torch.arange(61) - 30.0
        for radius in (-9.0, -0.4, 0.3, 2.0, 11.0):
            lens = PsfSettings(family=family, separation=1.0, tilt=0.3, field_tilt=0.8, position=(0.9, 0))
            center, left = (kernel_pair(radius, dataclasses.replace(lens, aligned_with=view), size=61)
                            for view in ("center", "left"))
            assert abs(float((left.left * pixels).sum())) < 1e-4
            assert float(((left.right - left.left) * pixels).sum()) == pytest.approx(
                float(((center.right - center.left) * pixels).sum()), abs=1e-4)
            assert float(left.left.sum()) == pytest.approx(1, abs=1e-5), "nothing falls off the kernel"


def test_half_disc_has_its_textbook_centroid():
    assert centroid(kernel_pair(10.0, PsfSettings(separation=1.0)).right) == pytest.approx(
        4 * 10 / (3 * np.pi), rel=0.001)


def test_settings_are_checked():
    with pytest.raises(OptionError, match="no PSF family 'square'.*half_disc"):
        kernel_pair(3.0, PsfSettings(family="square"))
    with pytest.raises(OptionError, match="out of range"):
        kernel_pair(3.0, PsfSettings(separation=1.5))
    with pytest.raises(OptionError, match="odd kernel"):
        kernel_pair(3.0, PsfSettings(), size=4)


def test_thin_lens_signs_and_size():
    lens = dict(focal_length=50.0, f_number=4.0, focus_distance=1000.0, pixel_pitch=0.006)
    depth = torch.tensor([600.0, 1000.0, 1500.0, 1e9])
    radius = blur_radius(depth, **lens)
    assert radius[0] < 0 and radius[1] == 0 and 0 < radius[2] < radius[3]
    # By hand: A/2 * s'/s / p * (z - s)/z with A = 12.5, s' = 50000/950.
    assert float(radius[2]) == pytest.approx(6.25 * (50000 / 950) / 1000 / 0.006 / 3, rel=1e-5)
    with pytest.raises(OptionError, match="cannot focus"):
        blur_radius(depth, **{**lens, "focus_distance": 40.0})


def test_radius_from_disparity_is_zero_in_focus_and_bounded():
    disparity = torch.tensor([10.0, 20.0, 40.0])
    radius = blur_radius_from_disparity(disparity, in_focus=20.0, max_radius=6.0)
    assert radius.tolist() == pytest.approx([3.0, 0.0, -6.0])
