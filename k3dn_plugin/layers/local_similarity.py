"""How alike each position is to its neighbors, in two feature maps.

Queries are cut into blocks of 4 x 8, keys into the same blocks with their halo, and all pairs of a block are made in
one matrix product; the wanted band of it is read as a strided view. Twice as many products as asked for, several times
faster than shift by shift (`layers/blocks.py`).
"""
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from k3dn_plugin.errors import SizeError
from k3dn_plugin.layers.blocks import add_halo_blocks, split_blocks, split_halo_blocks, strips
from k3dn_plugin.layers.macs import record_macs

BLOCK = (4, 8)
# Pairs of query and key in flight: a processor wants them, and what they are made of, in its cache; a GPU wants many.
PAIRS = {"cpu": 2 ** 18}
PAIRS_ELSEWHERE = 2 ** 28


def local_similarity(query: torch.Tensor, key: torch.Tensor, radius: int = 4) -> torch.Tensor:
    """Compute the mean over channels of query times shifted key, for every shift up to `radius`.

    The *mean* is what the published operator computes (`docs/networks/k3dn.md`, section 6); a sum would be C times
    larger. No (B, C, 81, H, W) tensor ever exists, and the backward pass keeps the two inputs alone.

    Args:
        query, key: (B, C, H, W), in either memory format.
        radius: largest shift, at least 0.

    Returns:
        (B, (2 radius + 1)^2, H, W): row shifts slow, column shifts fast, from (-radius, -radius) on;
        zero where the shifted key lies outside.

    Raises:
        SizeError: the shapes differ.
    """
    if query.shape != key.shape or query.ndim != 4:
        raise SizeError("local_similarity: expected query and key of one shape (B, C, H, W); found "
                        f"{tuple(query.shape)} and {tuple(key.shape)}")
    shifts = (2 * radius + 1) ** 2
    if query.device.type == "meta":
        # Costs are counted there: those of the wanted pairs, not those of whole blocks.
        record_macs(query.numel() * shifts)
        return query.new_empty(query.shape[0], shifts, *query.shape[2:])
    if torch.compiler.is_exporting():
        return _row_by_row(query, key.to(query.dtype), radius)
    similarity = _opaque if torch.compiler.is_compiling() else _LocalSimilarity.apply
    return similarity(query, key.to(query.dtype), radius)


def _row_by_row(query: torch.Tensor, key: torch.Tensor, radius: int) -> torch.Tensor:
    """Compute the same by few plain operations, which exported files can hold."""
    height, width = query.shape[-2:]
    side = 2 * radius + 1
    padded = F.pad(key, (radius,) * 4)
    columns = (torch.arange(side, device=key.device)[:, None] + torch.arange(width, device=key.device)).flatten()
    found = []
    for row in range(side):
        # (B, C, H, shifts, W): the columns under each shift
        shifted = padded[..., row:row + height, :].index_select(-1, columns).unflatten(-1, (side, width))
        found.append((query[..., None, :] * shifted).mean(1).movedim(2, 1))
    return torch.cat(found, 1)


class _LocalSimilarity(torch.autograd.Function):
    """Forward and backward by the same blocks, a strip of them at a time."""

    @staticmethod
    def forward(query: torch.Tensor, key: torch.Tensor, radius: int) -> torch.Tensor:
        return _similarity(query, key, radius)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, int], output: torch.Tensor) -> None:
        query, key, ctx.radius = inputs
        ctx.save_for_backward(query, key)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        query, key = ctx.saved_tensors
        return *_gradients(grad, query, key, ctx.radius), None


# For the compiler: it would write out each strip as a kernel of its own, a hundred for K3DN, and take minutes.
@torch.library.custom_op("k3dn_plugin::local_similarity", mutates_args=())
def _opaque(query: torch.Tensor, key: torch.Tensor, radius: int) -> torch.Tensor:
    return _similarity(query, key, radius).contiguous()


@_opaque.register_fake
def _(query: torch.Tensor, key: torch.Tensor, radius: int) -> torch.Tensor:
    return query.new_empty(query.shape[0], (2 * radius + 1) ** 2, *query.shape[2:])


@torch.library.custom_op("k3dn_plugin::local_similarity_gradients", mutates_args=())
def _opaque_gradients(grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor,
                      radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    of_query, of_key = _gradients(grad, query, key, radius)
    return of_query.contiguous(), of_key.contiguous()


@_opaque_gradients.register_fake
def _(grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _opaque_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
    query, key = ctx.saved_tensors
    return *_opaque_gradients(grad, query, key, ctx.radius), None


_opaque.register_autograd(_opaque_backward, setup_context=_LocalSimilarity.setup_context)


def _similarity(query: torch.Tensor, key: torch.Tensor, radius: int) -> torch.Tensor:
    batch, channels, height, width = query.shape
    queries, keys = _cut(query, key, radius)
    grid, side = queries.shape[1:3], 2 * radius + 1
    out = query.new_empty(batch, side, side, grid[0], BLOCK[0], grid[1], BLOCK[1])
    for part in _parts(query, grid, radius):
        # The mean, where it costs least: the queries of a strip are few.
        pairs = torch.bmm(_matrix(queries[:, part]) / channels, _matrix(keys[:, part]).transpose(1, 2))
        band = _band(pairs, radius).unflatten(0, (batch, -1, grid[1]))
        # (B, r, c, rows, columns, shift, shift) -> (B, shift, shift, r, rows, c, columns)
        out[:, :, :, part] = band.permute(0, 5, 6, 1, 3, 2, 4)
    return out.reshape(batch, side * side, grid[0] * BLOCK[0], -1)[..., :height, :width]


def _gradients(grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor,
               radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    side = 2 * radius + 1
    batch, channels, height, width = query.shape
    queries, keys = _cut(query, key, radius)
    grid = queries.shape[1:3]
    grad = _filled(grad / channels).reshape(batch, side, side, grid[0], BLOCK[0], grid[1], BLOCK[1])
    of_query = query.new_empty(batch, *grid, *BLOCK, channels)
    of_key = query.new_zeros(batch, grid[0] * BLOCK[0] + 2 * radius, grid[1] * BLOCK[1] + 2 * radius, channels)
    for part in _parts(query, grid, radius):
        q, k = _matrix(queries[:, part]), _matrix(keys[:, part])
        pairs = query.new_zeros(q.shape[0], q.shape[1], k.shape[1])
        _band(pairs, radius).copy_(grad[:, :, :, part].permute(0, 3, 5, 4, 6, 1, 2).flatten(0, 2))
        of_query[:, part] = torch.bmm(pairs, k).reshape(of_query[:, part].shape)
        blocks = torch.bmm(pairs.transpose(1, 2), q).unflatten(1, (BLOCK[0] + 2 * radius, -1))
        rows = slice(part.start * BLOCK[0], part.stop * BLOCK[0] + 2 * radius)
        add_halo_blocks(blocks.unflatten(0, (batch, -1, grid[1])), BLOCK, of_key[:, rows])
    # (B, r, c, rows, columns, C) -> (B, C, H, W)
    of_query = of_query.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, grid[0] * BLOCK[0], -1)
    of_key = of_key[:, radius:radius + height, radius:radius + width].permute(0, 3, 1, 2)
    return of_query[..., :height, :width], of_key


def _cut(query: torch.Tensor, key: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return blocks of queries, and of keys with their halo: (B, r, c, rows, columns, C), views of padded maps."""
    bottom, right = (-size % block for size, block in zip(query.shape[-2:], BLOCK))
    queries = split_blocks(_filled(query).permute(0, 2, 3, 1), BLOCK)
    padded = F.pad(key, (radius, radius + right, radius, radius + bottom))
    return queries, split_halo_blocks(padded.permute(0, 2, 3, 1), BLOCK, (radius, radius))


def _filled(x: torch.Tensor) -> torch.Tensor:
    """Return (..., H, W) with zeros at the bottom and right up to whole blocks."""
    bottom, right = (-size % block for size, block in zip(x.shape[-2:], BLOCK))
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


def _parts(query: torch.Tensor, grid: torch.Size, radius: int) -> list[slice]:
    """Return rows of blocks that are in flight together."""
    pairs = BLOCK[0] * BLOCK[1] * (BLOCK[0] + 2 * radius) * (BLOCK[1] + 2 * radius)
    return list(strips(grid[0], query.shape[0] * grid[1] * pairs, PAIRS.get(query.device.type, PAIRS_ELSEWHERE)))


def _matrix(blocks: torch.Tensor) -> torch.Tensor:
    """Return (blocks, pixels, channels) of (B, r, c, rows, columns, C), copied in the order that memory has them in."""
    if blocks.stride(-1) == 1:
        return blocks.reshape(-1, blocks.shape[3] * blocks.shape[4], blocks.shape[5])
    return blocks.movedim(-1, 3).reshape(-1, blocks.shape[5], blocks.shape[3] * blocks.shape[4]).transpose(1, 2)


def _band(pairs: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the wanted pairs as a view: (blocks, rows, columns, row shifts, column shifts).

    The query at (y, x) of a block meets the keys at (y + i, x + j) of the block with its halo, i and j from 0.
    """
    rows, columns = BLOCK
    wide, side = columns + 2 * radius, 2 * radius + 1
    keys = pairs.shape[2]
    return pairs.as_strided((pairs.shape[0], rows, columns, side, side),
                            (rows * columns * keys, columns * keys + wide, keys + 1, wide, 1))
