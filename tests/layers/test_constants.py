"""Tensors that are made once: kept, and fit for training whoever asks first."""
import pytest
import torch

from k3dn_plugin.archs import rdpd_arch
from k3dn_plugin.layers import coc_kernels, implicit_kernels
from k3dn_plugin.layers.constants import made_once
from k3dn_plugin.losses import edge

CPU = torch.device("cpu")
# All that networks and losses keep so, with arguments of each.
KEPT = {
    "radial map": (rdpd_arch._radial_map, (8, 12)),
    "ramp disc": (coc_kernels._ramp_disc_on, (3,)),
    "gaussian": (coc_kernels._gaussian_on, (5, 1.0)),
    "points": (implicit_kernels._points, ((3, 5),)),
    "sobel": (edge._sobel_on, (3,)),
}


def test_a_result_is_kept():
    calls = []

    @made_once(2)
    def ones(count):
        calls.append(count)
        return torch.ones(count)
    assert ones(3) is ones(3) and calls == [3]


@pytest.mark.parametrize("name", KEPT)
def test_what_was_first_asked_for_in_inference_mode_can_be_trained_with(name):
    function, arguments = KEPT[name]
    function.cache_clear()
    with torch.inference_mode():
        kept = function(*arguments, CPU, torch.float32)
    assert kept is function(*arguments, CPU, torch.float32)
    weight = torch.ones_like(kept, requires_grad=True)
    (weight * kept).sum().backward()
    assert torch.equal(weight.grad, kept)
