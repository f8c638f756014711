"""Neighborhood attention against its definition, pixel by pixel, and the blocks that it is made of."""
import pytest
import torch

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers import neighbourhood_attention as module
from k3dn_plugin.layers.blocks import add_halo_blocks, even_blocks, join_blocks, split_blocks, split_halo_blocks, strips
from k3dn_plugin.layers.neighbourhood_attention import NeighbourhoodAttention, neighbourhood_attention

DOUBLE = torch.float64


def neighbours(length, kernel, dilation):
    """Positions and bias indices of each pixel's neighbors along an axis, by search over its class."""
    positions, indices = [], []
    for i in range(length):
        members = list(range(i % dilation, length, dilation))
        place = members.index(i)
        nearest = sorted(sorted(range(len(members)), key=lambda p: abs(p - place))[:kernel])
        positions.append([members[p] for p in nearest])
        indices.append([p - place + kernel - 1 for p in nearest])
    return torch.tensor(positions), torch.tensor(indices)


def by_definition(query, key, value, bias, dilation):
    kernel = (bias.shape[1] + 1) // 2
    height, width = key.shape[2:4]
    (rows, row_bias), (columns, column_bias) = (neighbours(side, kernel, dilation) for side in (height, width))
    rows, row_bias = rows[:query.shape[2], None, :, None], row_bias[:query.shape[2], None, :, None]
    columns, column_bias = columns[None, :query.shape[3], None, :], column_bias[None, :query.shape[3], None, :]
    logits = torch.einsum("bhije,bhijtue->bhijtu", query * query.shape[-1] ** -0.5, key[:, :, rows, columns])
    logits = logits + bias[:, row_bias, column_bias]
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    return torch.einsum("bhijtu,bhijtue->bhije", weights, value[:, :, rows, columns])


def drawn(height, width, *, batch=2, heads=2, depth=3, kernel=7, asked=None, dtype=DOUBLE):
    draw = torch.Generator().manual_seed(0)
    asked = asked or (height, width)
    query = torch.randn(batch, heads, *asked, depth, generator=draw, dtype=dtype)
    key, value = (torch.randn(batch, heads, height, width, depth, generator=draw, dtype=dtype) for _ in range(2))
    bias = torch.randn(heads, 2 * kernel - 1, 2 * kernel - 1, generator=draw, dtype=dtype)
    return [x.requires_grad_() for x in (query, key, value, bias)]


CASES = [  # rows, columns, dilation, kernel, rows and columns asked
    (7, 7, 1, 7, None), (14, 15, 1, 7, None), (16, 33, 1, 7, None), (50, 8, 1, 7, None), (17, 26, 1, 7, None),
    (15, 14, 2, 7, None), (23, 31, 3, 7, None), (41, 22, 2, 7, None), (12, 21, 1, 3, None), (13, 25, 2, 5, None),
    (28, 28, 4, 7, (3, 11)), (14, 30, 2, 7, (5, 30)), (9, 9, 1, 9, None), (22, 24, 1, 9, None)]


@pytest.mark.parametrize("height, width, dilation, kernel, asked", CASES)
def test_value_and_gradients_by_definition(height, width, dilation, kernel, asked):
    inputs = drawn(height, width, kernel=kernel, asked=asked)
    found, wanted = (call(*inputs, dilation) for call in (neighbourhood_attention, by_definition))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    slope = torch.randn(found.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    for one, other in zip(*(torch.autograd.grad(out, inputs, slope) for out in (found, wanted))):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pairs", [1, 3000])
@pytest.mark.parametrize("dilation", [1, 2])
def test_strips_of_any_size_give_the_same(monkeypatch, pairs, dilation):
    inputs = drawn(35, 30, batch=1)
    whole = neighbourhood_attention(*inputs, dilation)
    wanted = torch.autograd.grad(whole.square().sum(), inputs)
    monkeypatch.setitem(module.PAIRS, "cpu", pairs)
    strip = neighbourhood_attention(*inputs, dilation)
    torch.testing.assert_close(strip, whole, rtol=0, atol=1e-13)
    for one, other in zip(torch.autograd.grad(strip.square().sum(), inputs), wanted):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 13])
def test_the_cut_shows_every_query_its_whole_window(kernel):
    """Exactly K keys are left to each query, and their bias rows are the right ones."""
    for length in [*range(kernel, 60), 95, 121]:
        axis = module._axis(length, length, kernel, torch.device("cpu"))
        outside = torch.cat([mask.expand(last - first, -1, -1) for first, last, mask in axis.outside])
        assert outside.shape[0] == axis.count
        _, indices = neighbours(length, kernel, 1)
        assert ((~outside).sum(-1) == kernel).all()
        seen = axis.offsets.expand_as(outside)[~outside].view(-1, kernel)
        assert torch.equal(seen[axis.query_pad[0]:][:length], indices), length


def test_memory_does_not_grow_with_the_pairs():
    """What is kept for the backward pass are the inputs, whatever the number of pairs."""
    inputs = drawn(40, 40, batch=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        neighbourhood_attention(*inputs)
    assert sum(kept) == sum(x.numel() for x in inputs)


def test_gradcheck():
    query, key, value, bias = drawn(7, 8, batch=1, heads=1, depth=1, kernel=3)
    assert torch.autograd.gradcheck(lambda *x: neighbourhood_attention(*x, 2), (query, key, value, bias))


def test_bfloat16_stays_close():
    inputs = [x.detach() for x in drawn(20, 20, depth=16, dtype=torch.float32)]
    wanted = neighbourhood_attention(*inputs)
    half = neighbourhood_attention(*(x.bfloat16() for x in inputs[:3]), inputs[3])
    assert half.dtype == torch.bfloat16
    assert (half.float() - wanted).norm() < 0.02 * wanted.norm()


def test_meta_device_counts_neighbours_and_computes_nothing():
    from k3dn_plugin.layers.macs import recorded_macs
    inputs = [x.detach().to("meta") for x in drawn(20, 30)]
    with recorded_macs() as products:
        assert neighbourhood_attention(*inputs).shape == inputs[0].shape
    assert sum(products) == 2 * 49 * 3 * 2 * 2 * 20 * 30


@pytest.mark.parametrize("spoil, message", [
    (lambda q, k, v, b: (q[:, :, :, :, :2], k, v, b), "expected query"),
    (lambda q, k, v, b: (q, k[:, :, :6], v[:, :, :6], b), "H' <= H"),
    (lambda q, k, v, b: (q[:, :, :6], k[:, :, :6], v[:, :, :6], b), "need at least 7 rows and columns"),
    (lambda q, k, v, b: (q, k, v, b[:1]), "expected a bias"),
    (lambda q, k, v, b: (q, k, v, b[:, :12, :12]), "expected a bias")])
def test_what_does_not_fit_is_reported(spoil, message):
    with pytest.raises(SizeError, match=message):
        neighbourhood_attention(*spoil(*drawn(9, 9)))


@pytest.mark.parametrize("settings, message", [
    ({"heads": 3}, "divisor of 8"), ({"kernel_size": 4}, "odd"), ({"dilation": 0}, "at least 1")])
def test_settings_out_of_range_are_reported(settings, message):
    with pytest.raises(OptionError, match=message):
        NeighbourhoodAttention(8, **{"heads": 2, **settings})


def test_the_module_pads_as_published():
    """Zeros before the projection: padded pixels have the bias as key and value, unmasked."""
    torch.manual_seed(0)
    attention = NeighbourhoodAttention(4, 2, dilation=2).double()
    torch.nn.init.normal_(attention.rpb)
    small = torch.randn(1, 5, 20, 4, dtype=DOUBLE)
    padded = torch.nn.functional.pad(small, (0, 0, 0, 0, 0, 9))
    torch.testing.assert_close(attention(small), attention(padded)[:, :5], rtol=0, atol=1e-13)
    wanted = attention(small)
    with torch.no_grad():
        attention.qkv.bias[8:] += 1  # of the values: seen by all weights alike, those of padded pixels too
    torch.testing.assert_close(attention(small) - wanted, attention.proj.weight.sum(1).expand_as(wanted))


@pytest.mark.parametrize("size, block", [((8, 12), (4, 6)), ((5, 9), (5, 3))])
def test_blocks_there_and_back(size, block):
    image = torch.arange(2 * size[0] * size[1] * 3).view(2, *size, 3)
    blocks = split_blocks(image, block)
    assert torch.equal(blocks[1, 0, 1], image[1, :block[0], block[1]:2 * block[1]])
    assert torch.equal(join_blocks(blocks), image)


@pytest.mark.parametrize("block, halo", [((4, 6), (3, 3)), ((4, 2), (5, 4)), ((8, 12), (0, 1))])
def test_halo_blocks_and_their_adjoint(block, halo):
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(2, 8 + 2 * halo[0], 12 + 2 * halo[1], 3, dtype=DOUBLE, generator=draw)
    blocks = split_halo_blocks(image, block, halo)
    assert blocks.shape == (2, 8 // block[0], 12 // block[1], block[0] + 2 * halo[0], block[1] + 2 * halo[1], 3)
    assert torch.equal(blocks[0, -1, -1], image[0, 8 - block[0]:, 12 - block[1]:])
    other = torch.randn(blocks.shape, dtype=DOUBLE, generator=draw)
    back = add_halo_blocks(other, block, torch.zeros_like(image))
    torch.testing.assert_close((blocks * other).sum(), (image * back).sum())


def test_blocks_that_do_not_divide_are_reported():
    with pytest.raises(SizeError, match="3 x 3 do not divide 8 x 9"):
        split_blocks(torch.zeros(1, 8, 9), (3, 3))
    with pytest.raises(SizeError, match="do not divide 6 x 7 pixels with a halo"):
        split_halo_blocks(torch.zeros(1, 8, 9), (3, 3), (1, 1))


def test_even_blocks_and_strips():
    assert even_blocks(31, 8) == (4, 8) and even_blocks(33, 8) == (5, 7) and even_blocks(3, 8) == (1, 3)
    assert list(strips(7, 10, 35)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(strips(2, 10, 1)) == [slice(0, 1), slice(1, 2)]
