"""Reblur modules that need no K3DN: their optics, and that any restorer can be trained beside them."""
import pytest
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.fractional_box import box_mean
from k3dn_plugin.modules.reblur.depth import rendered_views
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import MODULES

ESTIMATING = ("CoCReblur", "DepthReblur")  # a map of blur sizes, unless the restorer predicts one


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def guidance(views, **prediction):
    batch = {"lq": views, "center": (views[:, :3] + views[:, 3:]) / 2}
    return ReblurGuidance(batch=batch, prediction={"restored": batch["center"], **prediction}, restorer=None)


def shift(left, right):
    """Columns by which the content of `right` lies further right than that of `left`, by centroid."""
    columns = torch.arange(left.shape[-1], dtype=left.dtype)
    return float((right * columns).sum() / right.sum() - (left * columns).sum() / left.sum())


@pytest.mark.parametrize("name", ESTIMATING)
def test_views_of_a_point_part_with_the_sign_of_the_blur(name):
    sharp = torch.zeros(1, 3, 41, 41)
    sharp[..., 20, 20] = 1
    key = {"CoCReblur": "coc", "DepthReblur": "disparity_map"}[name]
    module = MODULES.build({"type": name, "predicted": key})
    shifts, energies = [], []
    for size in (-6.0, 0.0, 6.0):
        views = module(sharp, guidance(torch.zeros(1, 6, 41, 41), **{key: torch.full((1, 1, 41, 41), size)}))
        shifts.append(shift(views["left"], views["right"]))
        energies += [float(view.sum()) for view in views.values()]
    assert shifts[1] == pytest.approx(0, abs=1e-5)
    assert shifts[0] == pytest.approx(-shifts[2], rel=1e-4) and abs(shifts[2]) > 1
    assert energies == pytest.approx([3.0] * 6, rel=1e-4)


@pytest.mark.parametrize("name", ESTIMATING)
def test_no_blur_changes_nothing_and_the_sign_swaps_the_views(name):
    sharp, key = random(2, 3, 24, 31), {"CoCReblur": "coc", "DepthReblur": "disparity_map"}[name]
    module = MODULES.build({"type": name, "predicted": key})
    for view in module(sharp, guidance(random(2, 6, 24, 31), **{key: torch.zeros(2, 1, 24, 31)})).values():
        assert torch.allclose(view, sharp, atol=1e-6)
    size = 4 * random(2, 1, 24, 31, seed=1)
    plus, minus = (module(sharp, guidance(random(2, 6, 24, 31), **{key: s})) for s in (size, -size))
    assert torch.allclose(plus["left"], minus["right"], atol=1e-5)
    assert torch.allclose(plus["right"], minus["left"], atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATING)
def test_an_estimator_comes_along_and_is_trained(name):
    torch.manual_seed(0)
    module = MODULES.build({"type": name})
    views = module(random(1, 3, 33, 50), guidance(random(1, 6, 33, 50, seed=1)))
    assert set(views) == {"left", "right"} and views["left"].shape == (1, 3, 33, 50)
    (views["left"] - random(1, 3, 33, 50, seed=2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("name", ESTIMATING)
def test_a_map_that_the_restorer_does_not_predict_is_reported(name):
    module = MODULES.build({"type": name, "predicted": "depth"})
    with pytest.raises(OptionError, match=f"{name}.predicted: the restorer predicts no map 'depth'.*restored"):
        module(random(1, 3, 24, 24), guidance(random(1, 6, 24, 24)))


def test_box_means_against_a_plain_loop():
    images = random(1, 2, 9, 11).double()
    row, column = torch.meshgrid(torch.arange(9.), torch.arange(11.), indexing="ij")
    edges = [(row - 1)[None, None], (row + 3)[None, None], (column - 2)[None, None], (column + 1)[None, None]]
    found = box_mean(images, *edges)
    for y in range(9):
        for x in range(11):
            wanted = images[0, :, max(y - 1, 0):min(y + 3, 9), max(x - 2, 0):x + 1].mean((1, 2))
            assert torch.allclose(found[0, :, y, x], wanted, atol=1e-12)


def test_fractional_boxes_count_parts_of_pixels():
    line = torch.tensor([0., 1., 2., 3.])[None, None, None].double()
    edge = torch.zeros(1, 1, 1, 4)
    found = box_mean(line, edge, edge + 1, torch.arange(4.) * torch.ones_like(edge),
                     torch.arange(4.) + 1.5 * torch.ones_like(edge))
    assert found[0, 0, 0, 0] == pytest.approx((1 * 0 + 0.5 * 1) / 1.5)
    assert found[0, 0, 0, 3] == pytest.approx(3.0)  # cut off at the border


@pytest.mark.parametrize("name", [*ESTIMATING, "FilterReblur"])
def test_the_image_that_is_blurred_can_be_chosen(name):
    pair, sharp, restored = random(1, 6, 24, 32), random(1, 3, 24, 32, seed=1), random(1, 3, 24, 32, seed=2)

    def views(sharp, image):
        torch.manual_seed(0)
        module = MODULES.build({"type": name, "image": image})
        with torch.no_grad():
            return torch.cat(list(module(sharp, guidance(pair, restored=restored)).values()))
    assert torch.equal(views(sharp, "auto"), views(sharp, "restored")), "its own estimate: the restored image"
    assert torch.equal(views(sharp, "restored"), views(restored, "sharp"))
    assert not torch.equal(views(sharp, "restored"), views(sharp, "sharp"))
    with pytest.raises(OptionError, match="image: expected .*'auto', 'sharp'.* 'restored'.* found 'gt'"):
        views(sharp, "gt")


@pytest.mark.parametrize("name", ESTIMATING)
def test_a_plain_picture_stays_plain_up_to_the_border(name):
    key = {"CoCReblur": "coc", "DepthReblur": "disparity_map"}[name]
    module = MODULES.build({"type": name, "predicted": key})
    plain = torch.full((1, 3, 20, 26), 0.75)
    for view in module(plain, guidance(random(1, 6, 20, 26), **{key: 5 * random(1, 1, 20, 26)})).values():
        assert torch.allclose(view, plain, atol=1e-5)


def test_disparity_has_the_gradient_of_finite_differences():
    sharp = random(1, 3, 7, 8).double()
    disparity = (3 * random(1, 1, 7, 8, seed=1) + 0.2).double().requires_grad_()

    def render(d):
        views = rendered_views(sharp, d)
        return views["left"] + 2 * views["right"]
    assert torch.autograd.gradcheck(render, (disparity,))
