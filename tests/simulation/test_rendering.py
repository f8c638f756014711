"""Layered rendering: the checks that a simulator of dual-pixel pairs owes its users."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.errors import SizeError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation.layers import Surface, fill_holes, render_pair, surfaces_from_depth
from k3dn_plugin.simulation.psf import PsfSettings, kernel_pair

SIZE = (60, 72)


def picture(seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return F.avg_pool2d(torch.rand(3, *size, generator=generator)[None], 3, 1, 1)[0]


def flat(radius, seed=0):
    return [Surface(picture(seed), torch.ones(1, *SIZE), torch.full(SIZE, float(radius)))]


def scene(radius=3.0):
    """A background beyond focus and a square nearer than it."""
    alpha = torch.zeros(1, *SIZE)
    alpha[:, 20:40, 24:48] = 1
    return [*flat(radius), Surface(picture(1), alpha, torch.full(SIZE, -float(radius)))]


def flipped(surfaces):
    return [Surface(s.color.flip(-1), s.alpha.flip(-1), s.radius.flip(-1)) for s in surfaces]


@pytest.mark.parametrize("family", PSF_FAMILIES.names())
@pytest.mark.parametrize("radius", [-4.0, 2.5])
def test_the_mean_of_the_views_is_the_plain_blur(family, radius):
    settings = PsfSettings(family=family)
    left, right = render_pair(flat(radius), settings)
    kernel = kernel_pair(radius, settings).center
    pad = kernel.shape[-1] // 2
    padded = F.pad(picture()[None], (pad,) * 4, mode="reflect")
    # A convolution; the kernel's own mirror image, as conv2d correlates.
    plain = F.conv2d(padded, kernel.flip(0, 1).expand(3, 1, -1, -1), groups=3)[0]
    torch.testing.assert_close((left + right) / 2, plain, rtol=0, atol=2e-5)


def test_the_other_side_of_focus_swaps_the_views():
    one, other = render_pair(flat(3.0), PsfSettings()), render_pair(flat(-3.0), PsfSettings())
    torch.testing.assert_close(one[0], other[1], rtol=0, atol=1e-6)


def test_a_mirrored_scene_swaps_the_views():
    left, right = render_pair(scene(), PsfSettings(separation=0.7))
    mirrored = render_pair(flipped(scene()), PsfSettings(separation=0.7))
    torch.testing.assert_close(mirrored[0], right.flip(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(mirrored[1], left.flip(-1), rtol=0, atol=1e-5)


def test_in_focus_the_views_are_the_picture():
    for view in render_pair(flat(0.0), PsfSettings()):
        torch.testing.assert_close(view, picture(), rtol=0, atol=0)


def test_nothing_but_one_brightness_stays_that_brightness():
    radius = torch.linspace(-4, 4, SIZE[1]).expand(SIZE).clone()
    radius[:, 30:] += 3
    gray = torch.full((3, *SIZE), 0.4)
    for surfaces in (surfaces_from_depth(gray, radius),
                     [Surface(gray, s.alpha, s.radius) for s in scene()]):
        for view in render_pair(surfaces, PsfSettings()):
            torch.testing.assert_close(view, gray, rtol=0, atol=1e-4)


def test_a_sharp_foreground_stays_sharp_over_a_blurred_background():
    surfaces = scene(4.0)
    surfaces[1] = Surface(surfaces[1].color, surfaces[1].alpha, torch.zeros(SIZE))
    for view in render_pair(surfaces, PsfSettings()):
        torch.testing.assert_close(view[:, 20:40, 24:48], surfaces[1].color[:, 20:40, 24:48])


def test_no_foreground_leaks_into_a_sharp_background():
    surfaces = surfaces_from_depth(torch.cat([torch.ones(3, 60, 36), torch.zeros(3, 60, 36)], 2),
                                   torch.cat([torch.full((60, 36), -5.0), torch.zeros(60, 36)], 1))
    for view in render_pair(surfaces, PsfSettings()):
        assert float(view[..., 36 + 7:].abs().max()) < 1e-3


def shift_between(left, right):
    """Columns by which `right` lies right of `left`, from the phase of their spectra's low frequencies."""
    first, second = (np.fft.fft(v.mean(0).numpy() - v.mean().item(), axis=1) for v in (left, right))
    cross = (first.conj() * second).sum(0)
    k = np.arange(1, 6)
    return float(-(np.angle(cross[k]) / (2 * np.pi * k / left.shape[-1]) * np.abs(cross[k])).sum()
                 / np.abs(cross[k]).sum())


def test_the_shift_grows_linearly_with_the_radius():
    radii = np.array([-6, -4, -2, 2, 4, 6])
    # Fading out towards the sides, so that the borders have no say.
    texture = picture(size=(64, 256)) * torch.hann_window(256)
    shifts = []
    for radius in radii:
        surface = Surface(texture, torch.ones(1, 64, 256), torch.full((64, 256), float(radius)))
        shifts.append(shift_between(*render_pair([surface], PsfSettings(separation=0.8))))
    slope = np.polyfit(radii, shifts, 1)[0]
    assert slope == pytest.approx(2 * 0.8 * 4 / (3 * np.pi), rel=0.1)
    assert np.allclose(shifts, slope * radii, atol=0.25)


def test_slanted_surfaces_keep_their_texture():
    radius = torch.linspace(-0.4, 0.4, SIZE[1]).expand(SIZE)
    for view in render_pair(surfaces_from_depth(picture(), radius), PsfSettings()):
        assert float((view - picture()).abs().mean()) < 0.01


def test_holes_are_filled_from_their_rim():
    image = torch.zeros(3, 32, 32)
    image[0, :, :16], image[1, :, 16:] = 1, 1
    valid = torch.ones(1, 32, 32)
    valid[:, 8:24, 2:14] = 0
    filled = fill_holes(image * valid, valid)
    torch.testing.assert_close(filled[:, :8], image[:, :8])
    assert float((filled[:, 12:20, 4:8] - image[:, 12:20, 4:8]).abs().max()) < 0.05


def test_surfaces_that_do_not_fit_are_refused():
    with pytest.raises(SizeError, match="rearmost surface must cover"):
        render_pair(scene()[1:], PsfSettings())
    with pytest.raises(SizeError, match="one size"):
        render_pair([*flat(1.0), Surface(torch.rand(3, 5, 5), torch.ones(1, 5, 5), torch.zeros(5, 5))],
                    PsfSettings())
