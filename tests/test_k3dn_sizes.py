"""K3DN at every size that the released network takes, also where windows and vectors drift apart."""
import copy
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from k3dn_plugin.errors import SizeError
from k3dn_plugin.modules.disparity.pooling import WindowPooling
from k3dn_plugin.registry import ARCHS

# Facts about the released network, window 18 x 14 (`docs/networks/k3dn.md`, section 4.3).
HEIGHTS = [256, 264, 272, 280, 288, 304, 320, 336, 352, 368, 384, 400, 416, 432, 456, 480, 504, 528, 552,
           576, 608, 640, 672, 704, 720, 760, 800, 840, 864, 912, 960, 1008, 1064, 1120, 1152, 1216, 1280,
           1296, 1368]
WIDTHS = [256, 272, 288, 304, 320, 336, 360, 384, 408, 432, 448, 480, 512, 544, 560, 600, 640, 672, 720,
          768, 784, 840, 896, 960, 1008, 1080, 1120, 1200, 1232, 1320, 1344, 1440, 1456, 1560, 1568, 1680,
          1792]


def grid_at(height, width, window=(18, 14)):
    """The grid of vectors at an image size, or None where the size is refused."""
    with torch.device("meta"):
        pooling = WindowPooling(channels=1, vector_size=1, window=window)
        matched = torch.empty(1, 1, math.ceil(height / 32), math.ceil(width / 32))
    try:
        return pooling(matched, (height, width)).grid
    except SizeError:
        return None


def test_legal_sizes_are_those_of_the_released_network():
    assert [h for h in range(256, 1401) if grid_at(h, 1792)] == HEIGHTS
    assert [w for w in range(256, 1801) if grid_at(1152, w)] == WIDTHS


@pytest.mark.parametrize("window", [(2, 6), (6, 10), (14, 22), (30, 18)])
def test_multiples_of_a_window_never_drift(window):
    for rows in range(1, 9):
        for columns in (1, 2, 5):
            assert grid_at(8 * window[0] * rows, 8 * window[1] * columns, window) == (rows, columns)


@pytest.mark.parametrize("size", [(1120, 1680), (256, 256), (320, 448), (1152, 1792)])
def test_which_cells_a_vector_sees(size):
    """Stretched by nearest neighbours, pooled in fives and fours, the remainder dropped; in plain loops."""
    torch.manual_seed(0)
    matched = torch.rand(2, 1, *(math.ceil(side / 32) for side in size))
    pooling = WindowPooling(channels=1, vector_size=1, window=(18, 14))
    torch.nn.init.ones_(pooling.project.weight)
    torch.nn.init.zeros_(pooling.project.bias)
    feature = pooling(matched, size)

    high, wide = matched.shape[-2:]
    stretched = high + size[0] // 288, wide + size[1] // 224
    wanted = [matched[b, 0][[(5 * r + i) * high // stretched[0] for i in range(5)]]
              [:, [(4 * c + j) * wide // stretched[1] for j in range(4)]].mean()
              for b in range(2) for r in range(size[0] // 144) for c in range(size[1] // 112)]
    torch.testing.assert_close(feature.vectors[:, 0], torch.stack(wanted))


def test_the_lowest_window_of_a_dpdd_frame_looks_above_itself():
    matched = torch.arange(35.0)[None, None, :, None].expand(1, 1, 35, 53)
    pooling = WindowPooling(channels=1, vector_size=1, window=(18, 14))
    torch.nn.init.ones_(pooling.project.weight)
    torch.nn.init.zeros_(pooling.project.bias)
    lowest = pooling(matched, (1120, 1680)).as_map()[0, 0, -1]
    # Cells 27 to 31, where the window itself covers 30 to 34.
    torch.testing.assert_close(lowest, torch.full_like(lowest, 29.0))


@pytest.fixture(scope="module")
def narrow():
    """The released network's windows and pools at a small width."""
    torch.manual_seed(0)
    model = ARCHS.build({"type": "K3DN", "base_channels": 4, "encoder_blocks": 1, "vector_size": 16,
                         "deblur": {"type": "KernelSetDeblur", "blocks": 2},
                         "preservation": {"type": "SharpRegionPreservation", "blocks": 1}}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("size, grid", [((256, 256), (1, 2)), ((320, 448), (2, 4))])
def test_core_takes_legal_sizes_and_batches(narrow, size, grid):
    views = torch.rand(2, 6, *size) - 0.5
    with torch.inference_mode():
        disparity, second = narrow.estimate_disparity(views), narrow.estimate_disparity(views[1:])
        assert disparity.grid == grid
        for reverse in (False, True):
            together = narrow.core(views, disparity, reverse=reverse)
            assert together.shape == (2, 3, *size)
            torch.testing.assert_close(together[1:], narrow.core(views[1:], second, reverse=reverse),
                                       rtol=1e-4, atol=1e-4)


def test_forward_pads_where_core_would_drift(narrow):
    pair = torch.rand(1, 6, 256, 256)
    with torch.inference_mode():
        feature = narrow.training_outputs({"lq": pair})["disparity"]
    assert feature.grid == (2, 3)


@pytest.mark.parametrize("size, message", [((250, 336), "at least 256"), ((292, 336), "multiples of 8"),
                                           ((296, 336), "multiple of 144 x 112")])
def test_illegal_sizes_are_refused(narrow, size, message):
    with pytest.raises(SizeError, match=message):
        narrow.estimate_disparity(torch.zeros(1, 6, *size))


@pytest.mark.parametrize("preservation, macs", [(None, 1_389_265_419_264),
                                                ({"type": "SharpRegionPreservation"}, 3_055_407_166_464)])
def test_cost_is_the_measured_one(preservation, macs):
    height, width = 1120, 1680
    with torch.device("meta"):
        model = ARCHS.build({"type": "K3DN", "preservation": preservation}).eval()
        views = torch.empty(1, 6, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.core(views, model.estimate_disparity(views))
    similarity = 81 * height * width * (192 // 16 + 96 // 4 + 54) if preservation else 0
    assert counter.get_total_flops() // 2 + similarity == macs


@pytest.mark.parametrize("deblur", ["KernelSetDeblur", "WienerDeblur", "ConvDeblur"])
def test_all_weights_in_half_precision(deblur):
    torch.manual_seed(0)
    cls = ARCHS.get("K3DN")
    part = {"type": deblur, "blocks": 1}
    model = ARCHS.build({"type": "K3DN", **cls.tiny_arguments, "deblur": part}).eval()
    pair = torch.rand(1, 6, 48, 96)
    with torch.inference_mode():
        half = copy.deepcopy(model).bfloat16()(pair.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), model(pair), atol=0.02, rtol=0.05)
