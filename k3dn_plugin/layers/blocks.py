"""Images cut into blocks, and into blocks with their halo: local products as a few large matrix products.

An operation in which each pixel meets its neighbors (a local similarity, attention in a window) asks for many small
products. Cut into blocks, all pixels of a block meet all pixels of the same block and its halo in one matrix product;
the pairs that are too far apart are computed for nothing, and the others come several times faster than one by one.

Everything here is a view where it can be, works along axes 1 and 2 of tensors (N, rows, columns, ...), channels last,
and knows no operation. The usual order is

    for part in strips(grid_rows, pairs_per_row, limit):       # bounded memory
        queries = split_blocks(q, block)[:, part]              # (N, r, c, b1, b2, ...)
        keys = split_halo_blocks(k, block, halo)[:, part]      # (N, r, c, b1 + 2 halo, b2 + 2 halo, ...)
        ... permute, reshape (this copies), multiply ...

with `k` padded by the halo on all sides, and `add_halo_blocks` to send gradients of the keys back.
"""
from collections.abc import Iterator

import torch

from k3dn_plugin.errors import SizeError


def even_blocks(length: int, largest: int) -> tuple[int, int]:
    """Return `(count, size)`: the fewest blocks of at most `largest`, as small as that number of them allows.

    Args:
        length: pixels along the axis, at least 1; `count * size` is at least that, by less than `count`.
        largest: size that no block exceeds.
    """
    count = -(-length // largest)
    return count, -(-length // count)


def strips(rows: int, pairs_per_row: int, limit: int) -> Iterator[slice]:
    """Yield slices of `rows` rows of blocks, each of at most `limit` pairs of pixels, and of at least one row.

    Args:
        rows: rows of blocks.
        pairs_per_row: products that one row of blocks costs, over all images and heads.
        limit: of pairs in a strip.
    """
    step = max(1, limit // max(1, pairs_per_row))
    for top in range(0, rows, step):
        yield slice(top, min(top + step, rows))


def split_blocks(x: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Return the blocks of an image as a view.

    Args:
        x: (N, H, W, ...), H and W multiples of the block.
        block: (rows, columns) of a block.

    Returns:
        (N, H / rows, W / columns, rows, columns, ...).

    Raises:
        SizeError: the blocks do not divide the image.
    """
    if x.shape[1] % block[0] or x.shape[2] % block[1]:
        raise SizeError(f"blocks of {block[0]} x {block[1]} do not divide {x.shape[1]} x {x.shape[2]} pixels")
    return x.unflatten(2, (-1, block[1])).unflatten(1, (-1, block[0])).transpose(2, 3)


def join_blocks(blocks: torch.Tensor) -> torch.Tensor:
    """Return the image of (N, grid rows, grid columns, rows, columns, ...) blocks; undoes `split_blocks`."""
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def split_halo_blocks(x: torch.Tensor, block: tuple[int, int], halo: tuple[int, int]) -> torch.Tensor:
    """Return the blocks of a padded image with what surrounds them, as a view whose blocks overlap.

    Args:
        x: (N, H + 2 halo rows, W + 2 halo columns, ...): the image, padded by the halo on every side.
        block: (rows, columns) of a block without its halo; they divide H and W.
        halo: (rows, columns) seen beyond each edge of a block.

    Returns:
        (N, H / rows, W / columns, rows + 2 halo rows, columns + 2 halo columns, ...); read only, as pixels
        appear in several blocks.

    Raises:
        SizeError: the blocks do not divide the image.
    """
    inner = [size - 2 * margin for size, margin in zip(x.shape[1:3], halo)]
    if any(have < 1 or have % side for have, side in zip(inner, block)):
        raise SizeError(f"blocks of {block[0]} x {block[1]} do not divide {inner[0]} x {inner[1]} pixels with a halo "
                        f"of {halo[0]} x {halo[1]}")
    cut = x.unfold(1, block[0] + 2 * halo[0], block[0]).unfold(2, block[1] + 2 * halo[1], block[1])
    return cut.movedim((-2, -1), (3, 4))


def add_halo_blocks(blocks: torch.Tensor, block: tuple[int, int], into: torch.Tensor) -> torch.Tensor:
    """Add blocks with their halo where they were cut from; the adjoint of `split_halo_blocks`.

    Args:
        blocks: (N, r, c, rows + 2 halo rows, columns + 2 halo columns, ...).
        block: (rows, columns) of a block without its halo.
        into: (N, H + 2 halo rows, W + 2 halo columns, ...) of r x c blocks; changed in place.

    Returns:
        `into`.
    """
    grid, sides = blocks.shape[1:3], blocks.shape[3:5]
    # Pieces of at most one block's size, whose places in neighboring blocks do not overlap.
    for top in range(0, sides[0], block[0]):
        rows = min(block[0], sides[0] - top)
        for left in range(0, sides[1], block[1]):
            columns = min(block[1], sides[1] - left)
            piece = blocks[:, :, :, top:top + rows, left:left + columns]
            here = into[:, top:, left:].unfold(1, rows, block[0]).unfold(2, columns, block[1])
            here[:, :grid[0], :grid[1]].movedim((-2, -1), (3, 4)).add_(piece)
    return into
