"""What `inspect_kernels` says of kernels holds for kernels of which it is known."""
import numpy as np
import pytest
import torch

from k3dn_plugin.analysis.kernels import disparity_against_blur, inspection_pictures, kernel_facts
from k3dn_plugin.analysis.pictures import mosaic, principal
from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import ARCHS

PNG = b"\x89PNG"


def k3dn(deblur):
    torch.manual_seed(0)
    tiny = {**ARCHS.get("K3DN").tiny_arguments, "deblur": {"type": deblur, "blocks": 2}}
    return ARCHS.build({"type": "K3DN", **tiny}).eval()


def sample(defocus=True):
    generator = torch.Generator().manual_seed(0)
    found = {"lq": torch.rand(6, 96, 144, generator=generator), "name": "a"}
    if defocus:
        found["defocus"] = torch.linspace(-3, 3, 144).expand(1, 96, 144)
    return found


@pytest.mark.parametrize("deblur", ["KernelSetDeblur", "WienerDeblur"])
def test_kernel_sets_are_symmetric_and_queried(deblur):
    facts = kernel_facts(k3dn(deblur), sample())
    assert len(facts) == 2 and all(one.asymmetry < 1e-5 for one in facts)
    assert all(one.block_query.shape == (2 * 3, one.kernels) for one in facts)
    assert all(1 <= one.used <= one.kernels for one in facts)
    assert kernel_facts(k3dn(deblur))[0].used is None


def test_other_restorers_have_none():
    with pytest.raises(OptionError, match="DRBNet has no kernel sets"):
        kernel_facts(ARCHS.build({"type": "DRBNet", **ARCHS.get("DRBNet").tiny_arguments}))


def test_pictures():
    pictures = inspection_pictures(k3dn("KernelSetDeblur"), sample())
    assert set(pictures) == {"kernels", "spectra", "queries", "disparity_against_blur"}
    assert all(data.startswith(PNG) for data in pictures.values())
    assert set(inspection_pictures(k3dn("WienerDeblur"), sample(defocus=False))) == {"kernels", "spectra", "queries"}


def test_blur_is_that_of_each_window():
    values, truth = disparity_against_blur(k3dn("KernelSetDeblur"), sample())
    assert truth == pytest.approx(np.tile([-2.0, 0.0, 2.0], 2), abs=0.1) and len(values) == 6
    assert np.corrcoef(values, truth)[0, 1] >= 0


def test_the_principal_direction_orders_windows():
    vectors = torch.outer(torch.arange(6.), torch.tensor([1., 2., -1.])).view(2, 3, 3) + 5
    found = principal(vectors).flatten()
    steps = found.diff()
    assert torch.allclose(steps, steps[0].expand(5), atol=1e-4) and steps[0].abs() > 1
    assert not principal(torch.ones(2, 3, 4)).any()


def test_a_mosaic_shows_every_kernel_once():
    picture = mosaic(torch.eye(3).expand(10, 3, 3), columns=4)
    assert picture.shape == (12, 16) and torch.nansum(picture) == pytest.approx(30)
