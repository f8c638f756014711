"""Overlapped tiles that join without a seam: where they lie, and how they are blended.

A tile's pixels near an edge that is not the frame's edge are wrong: the network has not seen what lies
beyond. `margin` of them are thrown away, and the next `blend` fade in as a raised cosine. With a margin as
wide as the network looks, tiles give the same picture as the whole frame.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

BLEND = 16


@dataclass(frozen=True)
class TilePlan:
    """Tiles of one size that cover a frame.

    Attributes:
        frame: (rows, columns) of the padded frame. tile: (rows, columns) of each tile; the last ones end with the
            frame, and are smaller where that is no multiple of the steps.
        rows, columns: where tiles start.
        margin: pixels thrown away at edges inside the frame. blend: pixels over which tiles fade.
        wanted_margin: the margin that the network asks for; more than `margin` where tiles are too small.
    """

    frame: tuple[int, int]
    tile: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    margin: tuple[int, int]
    blend: tuple[int, int]
    wanted_margin: int

    @property
    def is_whole(self) -> bool:
        """Whether one tile is the whole frame."""
        return self.tile == self.frame

    def origins(self) -> list[tuple[int, int]]:
        """Return (row, column) of each tile, row by row."""
        return [(row, column) for row in self.rows for column in self.columns]

    def weights(self, row: int, column: int) -> torch.Tensor:
        """Return (rows, columns) float32 weights of the tile at an origin: 0 in the margin, 1 inside."""
        down, across = (fade(start, min(size, frame - start), frame, margin, blend)
                        for start, size, frame, margin, blend
                        in zip((row, column), self.tile, self.frame, self.margin, self.blend))
        return down[:, None] * across[None, :]

    def short_margin(self) -> bool:
        """Whether the tiles are too small for the margin that the network asks for."""
        divided = [len(starts) > 1 for starts in (self.rows, self.columns)]
        return any(many and margin < self.wanted_margin for many, margin in zip(divided, self.margin))

    def describe(self) -> str:
        """Return `whole`, or the tiling in words, as stored with a score."""
        if self.is_whole:
            return "whole"
        return (f"{len(self.rows)} x {len(self.columns)} tiles of {self.tile[0]} x {self.tile[1]}, margin "
                f"{self.margin[0]} x {self.margin[1]}")


def plan_tiles(frame: tuple[int, int], tile: tuple[int, int], *, multiple: tuple[int, int] = (1, 1), margin: int = 0,
               blend: int = BLEND) -> TilePlan:
    """Return a `TilePlan` for a padded `frame` (rows, columns).

    Args:
        tile: (rows, columns) wanted; larger than the frame means the frame. Must be multiples of `multiple`.
        multiple: tiles start at multiples of this, so that strides and windows fall as in the whole frame.
        margin: pixels to throw away; a tile gives at most a quarter of its side on each side.
    """
    tile = min(tile[0], frame[0]), min(tile[1], frame[1])
    starts: list[tuple[int, ...]] = []
    margins: list[int] = []
    blends: list[int] = []
    for size, length, step in zip(tile, frame, multiple):
        overlap = size - _stride(size, step, margin, blend)
        count = _count(length, size, step, margin, blend)
        last = -(-(length - size) // step) * step
        starts.append(tuple(min(i * (size - overlap), last) for i in range(count)))
        fading = min(blend, overlap - 2 * margin if overlap >= 2 * margin else overlap // 2)
        blends.append(fading)
        margins.append(min(margin, (overlap - fading) // 2))
    return TilePlan(frame=(frame[0], frame[1]), tile=tile, rows=starts[0], columns=starts[1],
                    margin=(margins[0], margins[1]), blend=(blends[0], blends[1]), wanted_margin=margin)


def even_tile(length: int, size: int, *, low: int = 1, step: int = 1, margin: int = 0, blend: int = BLEND) -> int:
    """Return the smallest side, at least `low`, with which no more tiles are needed than with `size`.

    Without it, a frame a little larger than a tile would be computed nearly twice.
    """
    count = _count(length, size, step, margin, blend)
    while size - step >= low and _count(length, size - step, step, margin, blend) <= count:
        size -= step
    return size


def _stride(size: int, step: int, margin: int, blend: int) -> int:
    """Distance of tiles: what the wanted overlap leaves, in steps, and at least one."""
    wanted = 2 * min(margin, size // 4) + min(blend, size // 8)
    return max((size - wanted) // step, 1) * step


def _count(length: int, size: int, step: int, margin: int, blend: int) -> int:
    if size >= length:
        return 1
    return 1 + math.ceil((length - size) / _stride(size, step, margin, blend))


def fade(start: int, size: int, frame: int, margin: int, blend: int) -> torch.Tensor:
    """Return 1-D weights of a tile: 1, with a margin of 0 and a raised-cosine ramp at edges inside the frame."""
    ramp = torch.cat([torch.zeros(margin),
                      0.5 - 0.5 * torch.cos(math.pi * (torch.arange(blend) + 0.5) / max(blend, 1))])
    weights = torch.ones(size)
    if start > 0:
        weights[:len(ramp)] = ramp
    if start + size < frame:
        weights[size - len(ramp):] = torch.minimum(weights[size - len(ramp):], ramp.flip(0))
    return weights


def restore_tiles(restore: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor], lq: torch.Tensor,
                  center: torch.Tensor | None, plan: TilePlan) -> torch.Tensor:
    """Run `restore(lq, center)` on each tile of `plan` and join the results.

    Args:
        lq, center: (B, 6, H, W) and (B, 3, H, W) or None, of the plan's frame size, on the device on which
            the joined picture is kept.

    Returns:
        (B, 3, H, W) float32.
    """
    if plan.is_whole:
        return restore(lq, center).float()
    total = torch.zeros(lq.shape[0], 3, *plan.frame, device=lq.device)
    weight = torch.zeros(plan.frame, device=lq.device)
    rows, columns = plan.tile
    for row, column in plan.origins():
        here = (..., slice(row, row + rows), slice(column, column + columns))
        part = restore(lq[here], None if center is None else center[here])
        fading = plan.weights(row, column).to(lq.device)
        total[here] += part.to(lq.device, torch.float32) * fading
        weight[here] += fading
    return total / weight
