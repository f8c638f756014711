"""What every simulated pair owes its users, for each family and both renderers.

The sum of the views is a plain blur; the other sign of the radius swaps the views; so does a mirrored scene;
and the shift between the views grows linearly with the radius, its slope twice the ratio of the kernels'
centroid gap to their diameter.
"""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.layers import Surface, render_pair, surfaces_from_depth
from k3dn_plugin.simulation.optics import blur_radius
from k3dn_plugin.simulation.psf import PsfSettings, centroid_gap

ROWS, COLUMNS = 64, 256


def texture(seed=0):
    """Smooth enough for sub-pixel shifts, fading out to the sides so that the borders have no say."""
    generator = torch.Generator().manual_seed(seed)
    noise = F.avg_pool2d(torch.rand(3, ROWS, COLUMNS, generator=generator)[None], 3, 1, 1)[0]
    return noise * torch.hann_window(COLUMNS)


def flat(radius):
    return [Surface(texture(), torch.ones(1, ROWS, COLUMNS), torch.full((ROWS, COLUMNS), float(radius)))]


def two_layers(radius):
    alpha = torch.zeros(1, ROWS, COLUMNS)
    alpha[:, 16:40, 100:150] = 1
    return [*flat(radius), Surface(texture(1), alpha, torch.full((ROWS, COLUMNS), -float(radius)))]


def shift_between(left, right):
    """Columns by which `right` lies right of `left`: phase correlation of the low frequencies."""
    first, second = (np.fft.fft(v.mean(0).numpy() - v.mean().item(), axis=1) for v in (left, right))
    cross = (first.conj() * second).sum(0)
    k = np.arange(1, 6)
    columns = np.angle(cross[k]) / (2 * np.pi * k / COLUMNS)
    return float(-np.average(columns, weights=np.abs(cross[k])))


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
class TestEveryPair:
    def test_the_sum_of_half_discs_is_a_plain_disc_blur(self, fast):
        left, right = render_pair(flat(5.0), PsfSettings(family="half_disc", separation=1.0), fast=fast)
        # A disc drawn finely and shrunk, by OpenCV: nothing of ours in it.
        fine = np.zeros((13 * 32, 13 * 32), np.uint8)
        cv2.circle(fine, (13 * 16 * 16 - 8,) * 2, 5 * 32 * 16, 255, -1, cv2.LINE_8, 4)
        disc = cv2.resize(fine.astype(np.float32), (13, 13), interpolation=cv2.INTER_AREA)
        plain = cv2.filter2D(texture().permute(1, 2, 0).numpy(), -1, disc / disc.sum(),
                             borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(((left + right) / 2).permute(1, 2, 0).numpy(), plain, atol=2e-3)

    @pytest.mark.parametrize("family", PSF_FAMILIES.names())
    def test_the_sum_of_the_views_does_not_depend_on_their_separation(self, family, fast):
        sums = [sum(render_pair(two_layers(4.0)[:1], PsfSettings(family=family, separation=s), fast=fast))
                for s in (0.0, 0.4, 1.0)]
        torch.testing.assert_close(sums[1], sums[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(sums[2], sums[0], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", PSF_FAMILIES.names())
    def test_the_other_sign_swaps_the_views(self, family, fast):
        settings = PsfSettings(family=family, separation=0.7)
        one, other = (render_pair(flat(r), settings, fast=fast) for r in (3.4, -3.4))
        torch.testing.assert_close(one[0], other[1], rtol=0, atol=1e-5)
        torch.testing.assert_close(one[1], other[0], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", PSF_FAMILIES.names())
    def test_a_mirrored_scene_swaps_the_views(self, family, fast):
        settings = PsfSettings(family=family, separation=0.7)
        left, right = render_pair(two_layers(3.4), settings, fast=fast)
        mirrored = render_pair([Surface(s.color.flip(-1), s.alpha.flip(-1), s.radius.flip(-1))
                                for s in two_layers(3.4)], settings, fast=fast)
        torch.testing.assert_close(mirrored[0], right.flip(-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(mirrored[1], left.flip(-1), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", PSF_FAMILIES.names())
    def test_the_shift_grows_linearly_with_the_radius(self, family, fast):
        settings = PsfSettings(family=family, separation=0.8)
        radii = np.array([-9, -6, -3, 3, 6, 9])
        shifts = [shift_between(*render_pair(flat(r), settings, fast=fast)) for r in radii]
        slope = np.polyfit(radii, shifts, 1)[0]
        ratio = centroid_gap(9.0, settings) / (2 * 9.0)
        assert slope == pytest.approx(2 * ratio, rel=0.08)
        assert np.allclose(shifts, slope * radii, atol=0.3)

    def test_light_is_kept(self, fast):
        """Far from the borders as much light arrives as leaves."""
        dot = torch.zeros(3, ROWS, COLUMNS)
        dot[:, 30:34, 120:124] = 1
        surface = Surface(dot, torch.ones(1, ROWS, COLUMNS), torch.full((ROWS, COLUMNS), 6.0))
        for view in render_pair([surface], PsfSettings(), fast=fast):
            assert float(view.sum()) == pytest.approx(float(dot.sum()), rel=1e-4)

    def test_half_a_thin_lens(self, fast):
        """From metres to the views' shift: z = 2 s, so r = A s' / (4 s p)."""
        depth = torch.full((ROWS, COLUMNS), 2.0)
        radius = blur_radius(1000 * depth, focal_length=35, f_number=4, focus_distance=1000, pixel_pitch=0.02)
        expected = 35 / 4 * (35 * 1000 / 965) / 1000 / 4 / 0.02
        assert float(radius[0, 0]) == pytest.approx(expected, rel=1e-5)
        views = render_pair(surfaces_from_depth(texture(), radius), PsfSettings(separation=1.0), fast=fast)
        assert shift_between(*views) == pytest.approx(expected * 8 / (3 * np.pi), rel=0.08)
