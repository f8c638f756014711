"""Kernels that differ over the field, measured banks, and the quick renderer that all of them share."""
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.field_window import FieldWindow
from k3dn_plugin.simulation.layers import Surface, render_pair
from k3dn_plugin.simulation.psf import PsfSettings, centroid_gap, kernel_pair
from k3dn_plugin.simulation.psf.measured import FILES, load_bank
from k3dn_plugin.simulation.radial import distort, margin_needed
from k3dn_plugin.simulation.sensor import SensorSettings, expose

SIZE = (60, 72)
GRID = (2, 4)


def picture(seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return F.avg_pool2d(torch.rand(3, *size, generator=generator)[None], 3, 1, 1)[0]


def scene(radius=3.0):
    """A slanted background beyond focus and a square nearer than it."""
    alpha = torch.zeros(1, *SIZE)
    alpha[:, 20:40, 24:48] = 1
    slope = torch.linspace(radius - 1, radius + 1, SIZE[1]).expand(SIZE)
    return [Surface(picture(), torch.ones(1, *SIZE), slope), Surface(picture(1), alpha, torch.full(SIZE, -radius))]


def flipped(surfaces):
    return [Surface(s.color.flip(-1), s.alpha.flip(-1), s.radius.flip(-1)) for s in surfaces]


@pytest.fixture
def bank(tmp_path):
    """Kernels on a 2 x 4 grid, symmetric about the axis alone, with a gap that grows to the sides."""
    y, x = np.mgrid[-12:13, -12:13].astype(float)
    disc = (x ** 2 + y ** 2 <= 100).astype(float)
    left, right = [], []
    for _ in range(GRID[0]):
        for column in range(GRID[1]):
            lean = (column - 1.5) / 3
            left.append(disc * (1.2 - x / 10 + lean * x / 10).clip(0))
            right.append(disc * (1.2 + x / 10 + lean * x / 10).clip(0))
    for name, kernels in zip(FILES, (left, right)):
        kernels = np.stack(kernels)
        np.save(tmp_path / name, (kernels / kernels.sum((1, 2), keepdims=True)).astype(np.float32))
    load_bank.cache_clear()
    return str(tmp_path)


def measured(bank, **settings):
    return PsfSettings(family="measured", separation=1.0, parameters={"folder": bank, "grid": GRID}, **settings)


def settings_of(kind, bank):
    return measured(bank) if kind == "measured" else PsfSettings(family=kind, field_tilt=0.6)


KINDS = [*PSF_FAMILIES.names(), "measured"]


@pytest.mark.parametrize("kind", KINDS)
class TestFieldAsymmetry:
    def test_the_mirror_holds_about_the_axis_and_not_at_a_place(self, kind, bank):
        settings = settings_of(kind, bank)
        here, there = (kernel_pair(6.0, settings.at((u, 0.1))) for u in (0.7, -0.7))
        torch.testing.assert_close(here.left, there.right.flip(1), rtol=0, atol=1e-5)
        assert float((here.left - here.right.flip(1)).abs().max()) > 1e-4

    def test_the_other_side_of_focus_turns_the_kernels(self, kind, bank):
        settings = settings_of(kind, bank).at((0.5, -0.3))
        one, other = kernel_pair(5.0, settings), kernel_pair(-5.0, settings)
        torch.testing.assert_close(one.left, other.left.flip(0, 1), rtol=0, atol=1e-5)

    def test_kernels_keep_the_light(self, kind, bank):
        for u in (-1.0, 0.3, 1.0):
            for radius in (-6.0, 0.7, 6.0):
                for kernel in kernel_pair(radius, settings_of(kind, bank).at((u, 0.0))):
                    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5) and float(kernel.min()) >= 0

    def test_a_mirrored_scene_swaps_the_views(self, kind, bank):
        settings = settings_of(kind, bank)
        left, right = render_pair(scene(), settings)
        mirrored = render_pair(flipped(scene()), settings)
        torch.testing.assert_close(mirrored[0], right.flip(-1), rtol=0, atol=2e-4)
        torch.testing.assert_close(mirrored[1], left.flip(-1), rtol=0, atol=2e-4)

    def test_one_brightness_stays_that_brightness(self, kind, bank):
        gray = torch.full((3, *SIZE), 0.4)
        surfaces = [Surface(gray, s.alpha, s.radius) for s in scene()]
        for fast in (False, True):
            for view in render_pair(surfaces, settings_of(kind, bank), fast=fast):
                torch.testing.assert_close(view, gray, rtol=0, atol=1e-3)


# Skewness along the rows of the mean of both kernels, by column of the field (mean of six rows), of those that were
# published for the Pixel 4 (Xin et al., ICCV 2021), and the distance of their centroids over the blur radius.
PIXEL_4_SKEWNESS = (-0.41, -0.35, -0.20, -0.11, 0.02, 0.19, 0.37, 0.44)
PIXEL_4_GAP = 0.42


@pytest.mark.parametrize("family", ["half_disc", "soft_disc", "translating_disc"])
def test_the_lean_over_the_field_is_that_of_measured_kernels(family):
    offsets, skewness, gaps = None, [], []
    full = centroid_gap(12.6, PsfSettings(family=family, separation=1.0)) / 12.6
    settings = PsfSettings(family=family, separation=PIXEL_4_GAP / full, field_tilt=0.8)
    for column in range(8):
        pair = kernel_pair(12.6, settings.at(((column + 0.5) / 4 - 1, 0.0)))
        offsets = torch.arange(pair.left.shape[1]) - pair.left.shape[1] // 2
        line = pair.center.sum(0)
        skewness.append(float((line * offsets ** 3).sum() / (line * offsets ** 2).sum() ** 1.5))
        gaps.append(centroid_gap(12.6, settings.at(((column + 0.5) / 4 - 1, 0.0))) / 12.6)
    slope = np.polyfit(PIXEL_4_SKEWNESS, skewness, 1)[0]
    assert slope == pytest.approx(1, abs=0.2)
    assert np.abs(np.array(skewness) - PIXEL_4_SKEWNESS).max() < 0.16
    assert min(gaps) > 0.84 * PIXEL_4_GAP


class TestQuickRenderer:
    @pytest.mark.parametrize("family", PSF_FAMILIES.names())
    def test_one_distance_is_rendered_alike(self, family):
        surfaces = [replace(s, radius=torch.full(SIZE, r)) for s, r in zip(scene(), (3.3, -2.2))]
        for exact, quick in zip(render_pair(surfaces, PsfSettings(family=family)),
                                render_pair(surfaces, PsfSettings(family=family), fast=True)):
            torch.testing.assert_close(exact, quick, rtol=0, atol=1e-5)

    def test_slopes_are_rendered_nearly_alike(self):
        for exact, quick in zip(render_pair(scene(), PsfSettings()), render_pair(scene(), PsfSettings(), fast=True)):
            assert float((exact - quick).abs().mean()) < 0.002

    @pytest.mark.parametrize("hole", [(0, 9, 0, 9), (50, 60, 60, 72), (20, 22, 0, 72), (0, 60, 30, 31)])
    def test_only_the_covered_part_is_transformed_and_nothing_wraps_round(self, hole):
        alpha = torch.zeros(1, *SIZE)
        alpha[:, hole[0]:hole[1], hole[2]:hole[3]] = 1
        surfaces = [scene()[0], Surface(picture(2), alpha, torch.full(SIZE, -4.0))]
        surfaces[0] = replace(surfaces[0], radius=torch.zeros(SIZE))
        for exact, quick in zip(render_pair(surfaces, PsfSettings()),
                                render_pair(surfaces, PsfSettings(), fast=True)):
            torch.testing.assert_close(exact, quick, rtol=0, atol=1e-5)

    def test_an_invisible_surface_changes_nothing(self):
        ghost = Surface(picture(2), torch.zeros(1, *SIZE), torch.full(SIZE, -4.0))
        for exact, quick in zip(render_pair(scene()[:1], PsfSettings(), fast=True),
                                render_pair([scene()[0], ghost], PsfSettings(), fast=True)):
            torch.testing.assert_close(exact, quick)

    def test_a_crop_has_the_lens_of_its_place(self):
        """Kernels far from the axis lean; a crop there must too, and one on the axis must not."""
        settings = PsfSettings(field_tilt=0.8)
        flat = [Surface(picture(), torch.ones(1, *SIZE), torch.full(SIZE, 4.0))]
        on_axis = render_pair(flat, settings, window=FieldWindow((600, 720), (270, 324)), fast=True)
        plain = render_pair(flat, PsfSettings(), fast=True)
        aside = render_pair(flat, settings, window=FieldWindow((600, 720), (270, 648)), fast=True)
        torch.testing.assert_close(on_axis[0], plain[0], rtol=0, atol=1e-5)
        expected = render_pair(flat, PsfSettings(tilt=-0.8 * 0.9), fast=True)
        torch.testing.assert_close(aside[0], expected[0], rtol=0, atol=1e-5)


class TestMeasuredBank:
    def test_sizes_are_scaled_copies(self, bank):
        gaps = [centroid_gap(r, measured(bank)) for r in (2.0, 4.0, 8.0)]
        assert gaps[0] > 0 and gaps == pytest.approx([gaps[2] / 4, gaps[2] / 2, gaps[2]], rel=0.03)

    def test_the_bank_knows_its_radius_and_its_side_of_focus(self, bank, tmp_path):
        assert load_bank(bank, GRID).radius == pytest.approx(10, rel=0.05)
        exchanged = tmp_path / "exchanged"
        exchanged.mkdir()
        for name, other in zip(FILES, reversed(FILES)):
            np.save(exchanged / name, np.load(tmp_path / other))
        assert centroid_gap(5.0, measured(str(exchanged))) > 0

    def test_what_is_no_bank_is_refused(self, tmp_path, bank):
        with pytest.raises(OptionError, match="needs the folder"):
            kernel_pair(3.0, PsfSettings(family="measured"))
        with pytest.raises(DataError, match="there is no .*blur_kernels_left.npy"):
            load_bank(str(tmp_path / "nowhere"))
        with pytest.raises(DataError, match=r"expected \(48, k, k\) kernels.*\(8, 25, 25\)"):
            load_bank(bank, (6, 8))
        (tmp_path / FILES[0]).write_bytes(b"no array")
        with pytest.raises(DataError, match="not an array"):
            load_bank(bank, (4, 2))


def test_vignetting_follows_the_place():
    gray = torch.full((3, 4, 100), 0.5)
    settings = SensorSettings(ramp=0.1, shot=0, read=0)
    frame = expose(gray, 1, settings, np.random.default_rng(0), window=FieldWindow((8, 200), (0, 0)))
    whole = expose(torch.full((3, 4, 200), 0.5), 1, settings, np.random.default_rng(0), window=FieldWindow((8, 200)))
    torch.testing.assert_close(frame, whole[..., :100])
    assert float(frame[0, 0, 0]) == pytest.approx(0.45, abs=1e-3)
    opposite = expose(gray, 0, settings, np.random.default_rng(0), window=FieldWindow((8, 200), (0, 0)))
    torch.testing.assert_close((frame + opposite) / 2, gray)


class TestRadialDistortion:
    BARREL = (-0.007, -0.0036, -0.0036, 1.015)

    def test_no_distortion_changes_nothing(self):
        torch.testing.assert_close(distort(picture(), (0, 0, 0, 1)), picture(), rtol=0, atol=1e-5)

    def test_points_come_from_where_the_polynomial_says(self):
        """A picture that holds its own coordinates."""
        rows, columns = torch.meshgrid(torch.arange(61.0), torch.arange(81.0), indexing="ij")
        moved = distort(torch.stack([rows, columns]), (0.01, 0.002, 0.003, 0.9))
        for row, column in ((30, 40), (10, 20), (50, 70)):
            y, x = row - 30, column - 40
            r = (y ** 2 + x ** 2) ** 0.5 / 30.5
            factor = 0.01 * r ** 3 + 0.002 * r ** 2 + 0.003 * r + 0.9
            assert moved[:, row, column].tolist() == pytest.approx([30 + y * factor, 40 + x * factor], abs=0.1)

    def test_mirrored_pictures_are_distorted_alike(self):
        torch.testing.assert_close(distort(picture().flip(-1), self.BARREL), distort(picture(), self.BARREL).flip(-1))

    def test_what_lies_outside_is_black_or_repeated(self):
        white = torch.ones(1, 40, 60)
        assert float(distort(white, self.BARREL[:3] + (1.2,))[0, 0, 0]) == 0
        torch.testing.assert_close(distort(white, self.BARREL[:3] + (1.2,), repeat=True), white)

    def test_a_crop_with_its_margin_has_no_black_border(self):
        for coefficients in (self.BARREL, (0.01, 0.0028, 0.0028, 0.9)):
            window = FieldWindow((600, 900), (10, 700))
            margin = margin_needed((64, 80), coefficients, window)
            grown = torch.ones(1, 64 + 2 * margin, 80 + 2 * margin)
            moved = distort(grown, coefficients, window=window.grown(margin), margin=margin)
            assert moved.shape == (1, 64, 80) and float(moved.min()) > 0.999
