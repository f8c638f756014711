"""Neighborhood attention: each pixel looks at the 7 x 7 pixels around it, or at every d-th of 7d x 7d.

A. Hassani, S. Walton, J. Li, S. Li, H. Shi, "Neighborhood Attention Transformer", CVPR 2023; A. Hassani, H. Shi,
"Dilated Neighborhood Attention Transformer", arXiv:2209.15001. The operator of natten 0.14.6, with its table of
relative biases, in plain PyTorch on any device (`docs/networks/dinat_ir.md`, section 4).

With dilation d the pixels of equal row and column modulo d form an image of their own, in which the dilation is 1.
Each of these is cut into blocks; all queries of a block meet all keys of the block and its halo in one matrix product,
and what lies outside a query's window is masked (`layers/blocks.py`). A strip of blocks at a time, forward and
backward, so that neither the copies of keys nor the weights of all pixels ever exist together.
"""
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.blocks import (
    add_halo_blocks,
    even_blocks,
    split_blocks,
    split_halo_blocks,
    strips,
)
from k3dn_plugin.layers.macs import record_macs
from k3dn_plugin.layers.residual import at_least_float32, without_autocast

LARGEST_BLOCK = 8
# Pairs of query and key in flight. A processor wants them in its cache, a GPU wants many at once.
PAIRS = {"cpu": 2 ** 18}
PAIRS_ELSEWHERE = 2 ** 26


def neighbourhood_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor,
                            dilation: int = 1) -> torch.Tensor:
    """Compute softmax(e^-1/2 q k + bias) v over the K x K neighbors of each pixel.

    Along each axis a pixel's neighbors are the K nearest of its own class, the positions that differ from its own by
    multiples of the dilation. At the borders the window is shifted inward, so that it always holds K of them.

    Args:
        query: (B, heads, H', W', e), not scaled; H' <= H and W' <= W, where missing queries are those at the end.
        key, value: (B, heads, H, W, e), both H and W at least K times the dilation.
        bias: (heads, 2 K - 1, 2 K - 1), added to the scaled product; index (K - 1, K - 1) is the pixel itself, rows
            first, counted in steps of the dilation.
        dilation: d, at least 1.

    Returns:
        (B, heads, H', W', e) in the dtype of `query`; softmax is taken in float32 at least.

    Raises:
        SizeError: the shapes do not fit one another, or the image is smaller than a window.
        OptionError: the dilation is below 1.
    """
    kernel = _kernel_of(query, key, value, bias, dilation)
    record_macs(2 * query.numel() * kernel ** 2)
    if query.device.type == "meta":
        # Costs are counted there: those of the neighbors, not those of the blocks that are masked.
        return torch.empty_like(query)
    key, value = key.to(query.dtype), value.to(query.dtype)
    with without_autocast(query):
        return _NeighbourhoodAttention.apply(query, key, value, at_least_float32(bias), dilation)


class NeighbourhoodAttention(nn.Module):
    """Multi-head self-attention in a neighborhood, (B, H, W, C) -> the same shape, any H and W.

    An image smaller than a window is padded with zeros at the bottom and right before the projection, as published:
    the padded pixels then have the projection's bias as key and value, and take part.

    Args:
        channels: C.
        heads: a divisor of C.
        kernel_size: K, odd; a pixel sees K x K neighbors.
        dilation: distance between neighbors, in pixels.

    Raises:
        OptionError: a setting is out of range.
    """

    def __init__(self, channels: int, heads: int, *, kernel_size: int = 7, dilation: int = 1) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise OptionError(f"NeighbourhoodAttention.heads: expected a divisor of {channels} channels, found {heads}")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise OptionError(f"NeighbourhoodAttention.kernel_size: expected an odd number from 3 on, "
                              f"found {kernel_size}")
        if dilation < 1:
            raise OptionError(f"NeighbourhoodAttention.dilation: expected at least 1, found {dilation}")
        self.heads, self.kernel_size, self.dilation = heads, kernel_size, dilation
        self.rpb = nn.Parameter(torch.empty(heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        size = x.shape[1:3]
        window = self.kernel_size * self.dilation
        # (B, H, W, 3, heads, e) -> 3 of (B, heads, H, W, e)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5)
        if min(size) < window:
            _, key_bias, value_bias = self.qkv.bias.view(3, self.heads, 1, 1, -1)
            key, value = (_padded(part, part_bias, window) for part, part_bias in ((key, key_bias),
                                                                                   (value, value_bias)))
        out = neighbourhood_attention(query, key, value, self.rpb, self.dilation)
        return self.proj(out.permute(0, 2, 3, 1, 4).flatten(-2))


def _padded(part: torch.Tensor, with_what: torch.Tensor, window: int) -> torch.Tensor:
    """(B, heads, H, W, e) with (heads, 1, 1, e) repeated at the bottom and right up to a window."""
    for axis in (2, 3):
        missing = window - part.shape[axis]
        if missing > 0:
            shape = list(part.shape)
            shape[axis] = missing
            part = torch.cat([part, with_what.to(part.dtype).expand(shape)], axis)
    return part


def _kernel_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, dilation: int) -> int:
    if query.ndim != 5 or key.ndim != 5 or key.shape != value.shape or query.shape[:2] != key.shape[:2] or (
            query.shape[-1] != key.shape[-1]) or any(q > k for q, k in zip(query.shape[2:4], key.shape[2:4])):
        raise SizeError("neighborhood attention: expected query (B, heads, H', W', e), key and value (B, heads, H, W, "
                        f"e) with H' <= H and W' <= W; found {tuple(query.shape)}, {tuple(key.shape)} and "
                        f"{tuple(value.shape)}")
    if bias.ndim != 3 or bias.shape[0] != query.shape[1] or bias.shape[1] != bias.shape[2] or bias.shape[1] % 4 != 1:
        raise SizeError(f"neighborhood attention: expected a bias of ({query.shape[1]}, 2 K - 1, 2 K - 1) with odd K; "
                        f"found {tuple(bias.shape)}")
    if dilation < 1:
        raise OptionError(f"neighborhood attention: expected a dilation of at least 1, found {dilation}")
    kernel = (bias.shape[1] + 1) // 2
    if min(key.shape[2:4]) < kernel * dilation:
        raise SizeError(f"neighborhood attention: {kernel} neighbors at dilation {dilation} need at least "
                        f"{kernel * dilation} rows and columns, found {tuple(key.shape[2:4])}; pad key and value")
    return kernel


class _Axis(NamedTuple):
    """How the places along one axis are cut into blocks.

    Attributes:
        count, size: blocks of queries, and places in each.
        key_size: places of keys in a block; as many as of queries, unless one block sees all keys.
        halo: places of keys beyond each end of a block; 0 where one block sees all keys.
        query_pad, key_pad: (front, back) zeros appended to make that many places.
        offsets: (size, key_size + 2 halo), row or column of the bias table for query and key, clamped to it.
        outside: per kind of block (where it starts, where it ends, mask (size, keys) of pairs to leave out).
    """

    count: int
    size: int
    key_size: int
    halo: int
    query_pad: tuple[int, int]
    key_pad: tuple[int, int]
    offsets: torch.Tensor
    outside: tuple[tuple[int, int, torch.Tensor], ...]


def _axis(queries: int, keys: int, kernel: int, device: torch.device) -> _Axis:
    """Cut an axis of a class of `keys` places, of which the first `queries` ask."""
    radius = kernel // 2
    largest = max(LARGEST_BLOCK, kernel + 1)
    if keys <= largest + kernel - 1:
        count, size, key_size, halo, query_pad, key_pad = 1, queries, keys, 0, (0, 0), (0, 0)
    else:
        # Padding on both ends: a block at the border must hold enough places for its halo to reach the window's end.
        count, size = even_blocks(keys, largest)
        spare, key_size, halo = count * size - keys, size, radius
        query_pad = spare // 2, spare - spare // 2 + keys - queries
        key_pad = spare // 2 + radius, spare - spare // 2 + radius
    span = key_size + 2 * halo
    start = torch.arange(count, device=device)[:, None, None] * size - query_pad[0]
    query = start + torch.arange(size, device=device)[:, None]
    key = start - halo + torch.arange(span, device=device)
    first = (query.clamp(0, keys - 1) - radius).clamp(0, keys - kernel)
    outside = (key < first) | (key >= first + kernel)  # (count, size, span)
    offsets = (key - query)[0].clamp(1 - kernel, kernel - 1) + kernel - 1
    # Blocks but the first and last are alike.
    kinds = [(0, 1), (1, count - 1), (count - 1, count)] if count > 1 else [(0, 1)]
    return _Axis(count, size, key_size, halo, query_pad, key_pad, offsets,
                 tuple((a, b, outside[a]) for a, b in kinds if b > a))


class _Plan(NamedTuple):
    """Blocks of all images that one group of classes makes."""

    rows: _Axis
    columns: _Axis
    bias_side: int

    @property
    def block(self) -> tuple[int, int]:
        return self.rows.size, self.columns.size

    @property
    def key_block(self) -> tuple[int, int]:
        return self.rows.key_size, self.columns.key_size

    @property
    def halo(self) -> tuple[int, int]:
        return self.rows.halo, self.columns.halo

    @property
    def pairs(self) -> int:
        """Of query and key, in one block."""
        return self.rows.offsets.numel() * self.columns.offsets.numel()

    @property
    def places(self) -> torch.Tensor:
        """Of every pair of a block in the bias table, flattened: (queries * keys,)."""
        side = self.bias_side
        return (self.rows.offsets[:, None, :, None] * side + self.columns.offsets[None, :, None, :]).flatten()

    def tables(self, bias: torch.Tensor) -> list[tuple[slice, slice, torch.Tensor]]:
        """The bias of every pair in rows and columns of blocks, -inf out of the window: (heads, queries, keys)."""
        whole = bias.flatten(1)[:, self.places].view(-1, self.rows.size, self.columns.size,
                                                     *(part.offsets.shape[1] for part in (self.rows, self.columns)))
        return [(slice(*row[:2]), slice(*column[:2]), whole.masked_fill(
                    row[2][:, None, :, None] | column[2][None, :, None, :], float("-inf")).flatten(3).flatten(1, 2))
                for row in self.rows.outside for column in self.columns.outside]


class _Group(NamedTuple):
    """Classes with equally many places in both directions, as slices of phase.

    Attributes:
        phases: of rows, of columns: (first, how many).
        keys, queries: (rows, columns), places of a class.
    """

    phases: tuple[tuple[int, int], tuple[int, int]]
    keys: tuple[int, int]
    queries: tuple[int, int]


def _groups(size: Sequence[int], asked: Sequence[int], dilation: int) -> Iterator[_Group]:
    """Yield the at most four groups of classes: those with one place more come first in each axis."""
    axes = []
    for length, wanted in zip(size, asked):
        places, extra = divmod(length, dilation)
        split = [(0, extra, places + 1), (extra, dilation - extra, places)]
        axes.append([(first, min(many, wanted - first), keys) for first, many, keys in split
                     if min(many, wanted - first) > 0])
    for first_row, rows, row_keys in axes[0]:
        for first_column, columns, column_keys in axes[1]:
            row_queries, column_queries = (
                min(keys, -(-(wanted - first) // dilation)) for keys, wanted, first in
                zip((row_keys, column_keys), asked, (first_row, first_column)))
            yield _Group(((first_row, rows), (first_column, columns)), (row_keys, column_keys),
                         (row_queries, column_queries))


def _phases(x: torch.Tensor, group: _Group, places: tuple[int, int], dilation: int) -> torch.Tensor:
    """(B, heads, H, W, e) -> view (row phases, B, column phases, rows, columns, heads, e) of a group's classes."""
    for axis, (first, many), count in zip((2, 3), group.phases, places):
        x = x.narrow(axis, first, x.shape[axis] - first).unfold(axis, many, dilation).narrow(axis, 0, count)
    return x.permute(5, 0, 6, 2, 3, 1, 4)


def _work(query: torch.Tensor, key: torch.Tensor, kernel: int,
          dilation: int) -> Iterator[tuple[_Group, _Plan, slice, int]]:
    """Yield a group of classes, its blocks, a slice of its row phases, and the pairs allowed in a strip."""
    limit = PAIRS.get(query.device.type, PAIRS_ELSEWHERE)
    for group in _groups(key.shape[2:4], query.shape[2:4], dilation):
        rows, columns = (_axis(asked, have, kernel, query.device) for asked, have in zip(group.queries, group.keys))
        plan = _Plan(rows, columns, 2 * kernel - 1)
        images = query.shape[0] * query.shape[1] * group.phases[1][1]
        for part in strips(group.phases[0][1], images * plan.rows.count * plan.columns.count * plan.pairs, limit):
            yield group, plan, part, images * (part.stop - part.start) * plan.columns.count * plan.pairs


def _images(x: torch.Tensor, part: slice, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    """Some row phases of a `_phases` view, padded: (N, rows, columns, heads, e)."""
    return F.pad(x[part].flatten(0, 2), (0, 0, 0, 0, *columns, *rows))


def _put(images: torch.Tensor, into: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """Write padded images back into their row phases of a `_phases` view."""
    cropped = images.narrow(1, rows[0], into.shape[3]).narrow(2, columns[0], into.shape[4])
    into.copy_(cropped.unflatten(0, into.shape[:3]))


def _rows_of_blocks(x: torch.Tensor) -> torch.Tensor:
    """(N, r, c, b1, b2, heads, e) -> (N r c heads, b1 b2, e)."""
    return x.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(0, 3)


def _blocks_of_rows(x: torch.Tensor, like: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """Undo `_rows_of_blocks`; `like` is the shape of what it was given."""
    n, r, c, b1, b2, heads, e = like
    return x.view(n, r, c, heads, b1, b2, e).permute(0, 1, 2, 4, 5, 3, 6)


def _weights(tables: list[tuple[slice, slice, torch.Tensor]], query: torch.Tensor, key: torch.Tensor, part: slice,
             grid: Sequence[int]) -> torch.Tensor:
    """Attention weights (N r c heads, queries, keys) of rows of blocks `part`; `grid` is N, r, c."""
    logits = at_least_float32(query @ key.transpose(1, 2))
    blocks = logits.view(*grid, -1, *logits.shape[1:])
    for rows, columns, table in tables:
        first, last = max(rows.start, part.start) - part.start, min(rows.stop, part.stop) - part.start
        if last > first:
            blocks[:, first:last, columns].add_(table)
    return logits.softmax(-1)


class _NeighbourhoodAttention(torch.autograd.Function):
    """The operator with a backward pass that makes the weights again, a strip at a time."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor,
                dilation: int) -> torch.Tensor:
        ctx.save_for_backward(query, key, value, bias)
        ctx.dilation = dilation
        kernel, scale = (bias.shape[1] + 1) // 2, query.shape[-1] ** -0.5
        whole = _whole_classes(query, key, dilation)
        out = torch.empty_like(whole, memory_format=torch.contiguous_format)
        for group, plan, phases, per_row in _work(query, key, kernel, dilation):
            rows, columns = plan.rows, plan.columns
            q = _images(_phases(whole, group, group.queries, dilation), phases, rows.query_pad, columns.query_pad)
            k, v = (_images(_phases(x, group, group.keys, dilation), phases, rows.key_pad, columns.key_pad)
                    for x in (key, value))
            tables = plan.tables(bias)
            attended = torch.empty_like(q)
            for part in strips(rows.count, per_row, PAIRS.get(query.device.type, PAIRS_ELSEWHERE)):
                q_part = split_blocks(q, plan.block)[:, part]
                k_part, v_part = (split_halo_blocks(x, plan.key_block, plan.halo)[:, part] for x in (k, v))
                weights = _weights(tables, _rows_of_blocks(q_part) * scale, _rows_of_blocks(k_part), part,
                                   q_part.shape[:3])
                split_blocks(attended, plan.block)[:, part] = _blocks_of_rows(
                    weights.to(q.dtype) @ _rows_of_blocks(v_part), q_part.shape)
            _put(attended, _phases(out, group, group.queries, dilation)[phases], rows.query_pad, columns.query_pad)
        return out[:, :, :query.shape[2], :query.shape[3]]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, bias = ctx.saved_tensors
        dilation, scale = ctx.dilation, query.shape[-1] ** -0.5
        kernel = (bias.shape[1] + 1) // 2
        whole, grad = (_whole_classes(x, key, dilation) for x in (query, grad))
        grad_query = torch.zeros_like(whole, memory_format=torch.contiguous_format)
        # A group holds all keys of its classes, but classes without a query have no group.
        grad_key, grad_value = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (key, value))
        grad_bias = torch.zeros_like(bias)
        for group, plan, phases, per_row in _work(query, key, kernel, dilation):
            rows, columns = plan.rows, plan.columns
            q, g = (_images(_phases(x, group, group.queries, dilation), phases, rows.query_pad, columns.query_pad)
                    for x in (whole, grad))
            k, v = (_images(_phases(x, group, group.keys, dilation), phases, rows.key_pad, columns.key_pad)
                    for x in (key, value))
            tables = plan.tables(bias)
            grad_table = torch.zeros_like(tables[0][-1])
            dq = torch.empty_like(q)
            # Halos overlap, and half precision would lose what is added last.
            dk, dv = (torch.zeros_like(at_least_float32(x)) for x in (k, v))
            for part in strips(rows.count, per_row, PAIRS.get(query.device.type, PAIRS_ELSEWHERE)):
                q_part, g_part = (split_blocks(x, plan.block)[:, part] for x in (q, g))
                k_part, v_part = (split_halo_blocks(x, plan.key_block, plan.halo)[:, part] for x in (k, v))
                grid = q_part.shape[:3]
                q_rows, g_rows, k_rows, v_rows = map(_rows_of_blocks, (q_part, g_part, k_part, v_part))
                q_rows = q_rows * scale
                weights = _weights(tables, q_rows, k_rows, part, grid)
                value_rows = weights.to(q.dtype).transpose(1, 2) @ g_rows
                slopes = at_least_float32(g_rows @ v_rows.transpose(1, 2)).mul_(weights)
                slopes.sub_(weights.mul_(slopes.sum(-1, keepdim=True)))
                grad_table += slopes.view(-1, *grad_table.shape).sum(0)
                slopes = slopes.to(q.dtype)
                split_blocks(dq, plan.block)[:, part] = _blocks_of_rows(slopes @ k_rows, q_part.shape) * scale
                for pixels, found in ((dk, slopes.transpose(1, 2) @ q_rows), (dv, value_rows)):
                    below = pixels[:, part.start * rows.key_size:part.stop * rows.key_size + 2 * rows.halo]
                    add_halo_blocks(_blocks_of_rows(found, k_part.shape), plan.key_block, below)
            for found, into in ((dk, grad_key), (dv, grad_value)):
                _put(found, _phases(into, group, group.keys, dilation)[phases], rows.key_pad, columns.key_pad)
            _put(dq, _phases(grad_query, group, group.queries, dilation)[phases], rows.query_pad, columns.query_pad)
            grad_bias.flatten(1).index_add_(1, plan.places, grad_table.flatten(1))
        return grad_query[:, :, :query.shape[2], :query.shape[3]], grad_key, grad_value, grad_bias, None


def _whole_classes(x: torch.Tensor, key: torch.Tensor, dilation: int) -> torch.Tensor:
    """Queries padded so that their classes have equally many places, where there are fewer queries than keys."""
    missing = [0 if have == full else -have % dilation for have, full in zip(x.shape[2:4], key.shape[2:4])]
    return F.pad(x, (0, 0, 0, missing[1], 0, missing[0])) if any(missing) else x
