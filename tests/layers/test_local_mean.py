"""Local pooling against means taken window by window."""
import pytest
import torch

from k3dn_plugin.errors import SizeError
from k3dn_plugin.layers.local_mean import grid_means, local_mean, training_window


def by_hand(x, window):
    """`docs/networks/nafnet.md`, section 4, pixel by pixel."""
    height, width = x.shape[-2:]
    rows, columns = (min(side, size) for side, size in zip(window, (height, width)))
    out = torch.empty_like(x)
    for r in range(height):
        top = min(max(r - (rows - 1) // 2, 0), height - rows)
        for c in range(width):
            left = min(max(c - (columns - 1) // 2, 0), width - columns)
            out[..., r, c] = x[..., top:top + rows, left:left + columns].mean((-2, -1))
    return out


@pytest.mark.parametrize("window", [(3, 4), (4, 3), (1, 1), (9, 2), (2, 30), (8, 11)])
def test_means_of_windows_kept_inside(window):
    x = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(local_mean(x, window), by_hand(x, window))


@pytest.mark.parametrize("window", [None, (9, 12), (10, 40)])
def test_windows_that_cover_the_map_are_its_mean(window):
    x = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(local_mean(x, window), x.mean((-2, -1), keepdim=True))


def test_half_precision_sums_in_float32():
    x = (torch.rand(1, 2, 40, 300, generator=torch.Generator().manual_seed(0)) + 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = local_mean(x, (30, 200))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), local_mean(x.double(), (30, 200)).float(), rtol=5e-3, atol=0)


def test_gradcheck():
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: local_mean(t, (2, 3)), x)


@pytest.mark.parametrize("train_size, level, window", [
    ((256, 256), 0, (384, 384)), ((256, 256), 3, (48, 48)), ((256, 256), 4, (24, 24)), ((64, 128), 1, (48, 96)),
    ((100, 40), 0, (168, 72)), ((100, 40), 2, (42, 18))])
def test_windows_of_training_crops(train_size, level, window):
    assert training_window(train_size, level=level, multiple=16) == window


def test_means_of_windows_side_by_side():
    x = torch.arange(24.0).view(1, 1, 4, 6)
    assert grid_means(x, (2, 3)).tolist() == [[[[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]]]
    with pytest.raises(SizeError, match="4 x 6 cannot be cut evenly into 3 x 3"):
        grid_means(x, (3, 3))
