"""Restores frames of any size within a memory bound: whole where that fits, else in overlapped tiles.

The bound is kept by measuring: two small pieces of the frame are restored, their peak memory gives a line
over the number of pixels, and the tile is the largest that this line puts below the bound. Every tile is
measured too, so a line that was too low is raised and the frame begun again with smaller tiles.
"""
import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from k3dn_plugin.archs.base import Restorer, check_pair
from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference.compiled import compiled
from k3dn_plugin.inference.device import choose_device
from k3dn_plugin.inference.memory import GIB, PeakMemory, is_out_of_memory, memory_available, memory_in_use, release
from k3dn_plugin.inference.self_ensemble import self_ensemble
from k3dn_plugin.inference.settings import InferenceSettings
from k3dn_plugin.inference.tiling import TilePlan, even_tile, plan_tiles, restore_tiles
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.layers.windows import pad_to

SAFETY = 0.9                   # of the room for tiles is planned for: a fit through two points is not exact
UNMEASURED_PIXELS = 512 ** 2   # frames up to this size run whole without a probe where no bound is set
PROBE_SIDE = 192               # pixels, of the smaller of the two pieces that are measured

Progress = Callable[[int, int], object]   # called with the tiles done, and all of them
Size = tuple[int, int]                    # (rows, columns)


@dataclass(frozen=True)
class RestoredFrame:
    """A restored frame and how it came about.

    Attributes:
        image: (B, 3, H, W) float32 on the CPU, in the units of [0, 1], not clamped.
        tiling: "whole", or the tiles in words.
        same_as_whole: whether the tiles give what the whole frame would, as far as is known.
        peak_bytes: most memory in use while restoring (see `memory.py`).
    """

    image: torch.Tensor
    tiling: str
    same_as_whole: bool
    peak_bytes: int


class FrameRestorer:
    """Restores full frames with one restorer; remembers what it measured from frame to frame.

    Args:
        restorer: a `Restorer`; moved to the settings' device and used in evaluation mode.
        settings: where, how precisely and in which pieces it runs.

    Raises:
        OptionError: the settings do not fit the restorer, or the device is missing. When restoring: the memory bound
            is below what the smallest tile needs.
    """

    def __init__(self, restorer: Restorer, settings: InferenceSettings | None = None) -> None:
        settings = settings or InferenceSettings()
        settings = settings.decided(restorer)
        self.settings, self.device = settings, choose_device(settings.device)
        self.restorer = restorer.to(self.device).eval()
        self.amp = None if settings.half is None else getattr(torch, settings.half)
        self._network = compiled(restorer, self.device) if settings.compile else self.restorer
        self._line = None
        self._proven = None

    def maps_of(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the maps of a sample that the restorer reads besides the views, (1, 1, h, w) each; mostly none."""
        return {name: found[None] for name, found in self.restorer.maps_of(sample).items()} if self._maps else {}

    def __call__(self, lq: torch.Tensor, center: torch.Tensor | None = None,
                 maps: Mapping[str, torch.Tensor] | None = None, *, progress: Progress | None = None) -> RestoredFrame:
        """Restore (B, 6, H, W) in [0, 1], with (B, 3, H, W) center or None.

        Args:
            maps: (B, 1, h, w) by name, what the restorer's `maps` name; of other sizes enlarged to the frame by their
                nearest pixels. None for those that it finds without a sample.
            progress: called as `progress(done, total)` after each tile; `total` grows where memory runs out and the
                frame is begun again with smaller tiles.
        """
        check_pair(lq, center)
        center = self._with_maps(lq, center, self.maps_of({}) if maps is None else maps)
        height, width = lq.shape[-2:]
        frame = self.restorer.size_rule.padded(height, width)
        lq = pad_to(lq, frame)
        center = None if center is None else pad_to(center, frame)
        plan = self._plan(frame, lq, center)
        peaks: list[int] = []
        while True:
            try:
                image = self._restore(lq, center, plan, peaks, progress)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                smaller = self._smaller(plan)
                if smaller is None:
                    raise OptionError(f"memory ran out even with tiles of {plan.tile[0]} x {plan.tile[1]} "
                                      "pixels, the smallest that the network takes; free some memory or use "
                                      "a smaller network") from error
                plan = smaller
            # Outside the handler, whose traceback keeps the failed attempt's tensors alive.
            release(self.device)
        return RestoredFrame(image[..., :height, :width], plan.describe(), self._is_exact(plan),
                             max(peaks, default=0))

    @property
    def _maps(self) -> tuple[str, ...]:
        return getattr(self.restorer, "maps", ())

    def _with_maps(self, lq: torch.Tensor, center: torch.Tensor | None,
                   maps: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the center view with the maps as further channels: they are padded, cut and mirrored as it is."""
        if not self._maps:
            return center
        center = mean_of_views(lq) if center is None else center
        return torch.cat([center, *(F.interpolate(maps[name].to(center), size=lq.shape[-2:], mode="nearest")
                                    for name in self._maps)], 1)

    def _is_exact(self, plan: TilePlan) -> bool:
        return plan.is_whole or (self.restorer.card.tiling == "exact" and not plan.short_margin())

    def _restore(self, lq: torch.Tensor, center: torch.Tensor | None, plan: TilePlan, peaks: list[int],
                 progress: Progress | None) -> torch.Tensor:
        """Return the joined frame on the CPU; raises `_OverBoundError` where a tile took more than the bound."""
        total = len(plan.origins()) * (4 if self.settings.self_ensemble else 1)
        before = len(peaks)

        def one(part: torch.Tensor, part_center: torch.Tensor | None) -> torch.Tensor:
            with PeakMemory(self.device) as peak:
                restored = self._forward(part, part_center, self._network)
            peaks.append(peak.bytes)
            self._check_bound(peak.bytes, plan)
            if progress is not None:
                progress(len(peaks) - before, total)
            return restored

        def frame(whole: torch.Tensor, whole_center: torch.Tensor | None) -> torch.Tensor:
            return restore_tiles(one, whole, whole_center, plan)
        return self_ensemble(frame, lq, center) if self.settings.self_ensemble else frame(lq, center)

    def _forward(self, lq: torch.Tensor, center: torch.Tensor | None,
                 network: Callable[..., torch.Tensor]) -> torch.Tensor:
        """One call of the network: in and out on the CPU."""
        lq = lq.to(self.device)
        center = None if center is None else center.to(self.device)
        maps: dict[str, torch.Tensor] = {}
        if self._maps and center is not None:
            center, *found = torch.split(center, [3, *(1 for _ in self._maps)], 1)
            maps = dict(zip(self._maps, found))
        precision = torch.autocast(self.device.type, self.amp) if self.amp else contextlib.nullcontext()
        # no_grad, not inference_mode: a network may keep what it computes once for later training.
        with torch.no_grad(), precision:
            return network(lq, center, **maps).float().cpu()

    def _plan(self, frame: Size, lq: torch.Tensor, center: torch.Tensor | None) -> TilePlan:
        """Tiles for a padded frame: as asked for, or the largest that memory allows."""
        if self.settings.tile is not None:
            return self._tiles(frame, (self.settings.tile, self.settings.tile))
        bound = self._bound(math.prod(frame))
        tile = frame if bound is None else self._largest_tile(frame, lq, center, bound)
        if self._proven is not None and math.prod(self._proven) < math.prod(tile):
            tile = self._proven
        return self._tiles(frame, tile)

    def _bound(self, pixels: int) -> float | None:
        """Bytes that restoring a frame may bring the memory in use to, or None to find out by trying."""
        if self.settings.max_memory_gb is not None:
            return self.settings.max_memory_gb * GIB
        # A GPU says when its memory is full, and the frame is tried again in tiles. A system without free
        # memory may kill the process instead, so on the CPU it is better to know before.
        if self.device.type != "cpu" or pixels <= UNMEASURED_PIXELS:
            return None
        in_use = memory_in_use(self.device)
        return in_use + (memory_available(self.device) - in_use) / self.settings.share

    def _tiles(self, frame: Size, tile: Size) -> TilePlan:
        rule = self.restorer.size_rule.for_tiles
        tile = rule.padded(*(min(t, f) for t, f in zip(tile, frame)))
        return plan_tiles(frame, tile, multiple=rule.multiple, margin=self.restorer.card.receptive_margin)

    def _largest_tile(self, frame: Size, lq: torch.Tensor, center: torch.Tensor | None, bound: float) -> Size:
        """(rows, columns) of the largest tile whose predicted peak stays below the bound."""
        base, slope = self._line = self._line or self._measure(frame, lq, center, bound)
        # Beside the tile: the joined picture, its weights, and the ensemble's sum.
        joined = 4 * math.prod(frame) * (lq.shape[0] * 3 * (3 if self.settings.self_ensemble else 1) + 2)
        base += joined if self.device.type == "cpu" else 0
        pixels = (bound - base) * SAFETY / slope
        smallest = self.restorer.size_rule.for_tiles.padded(1, 1)
        needed = base + slope * math.prod(smallest)
        if needed > bound and self.settings.max_memory_gb is not None:
            raise OptionError(
                f"max_memory_gb {self.settings.max_memory_gb:g} is too little: {type(self.restorer).__name__} needs "
                f"about {needed / GIB:.3g} GiB for its smallest tile, {smallest[0]} x {smallest[1]} pixels "
                f"of a {frame[0]} x {frame[1]} frame. Raise the bound")
        if self.settings.max_memory_gb is None:
            # What is free is a guess, and tiny tiles take for ever: no smaller than what was just measured.
            pixels = max(pixels, PROBE_SIDE ** 2)
        if pixels >= math.prod(frame):
            return frame
        side = math.sqrt(max(pixels, 1))
        rows = min(frame[0], max(side, pixels / frame[1]))
        margin, steps = self.restorer.card.receptive_margin, self.restorer.size_rule.for_tiles.multiple
        sides = (rows, min(frame[1], pixels / rows))
        height, width = (even_tile(length, _floor(size, step, low), low=low, step=step, margin=margin)
                         for length, size, step, low in zip(frame, sides, steps, smallest))
        return height, width

    def _measure(self, frame: Size, lq: torch.Tensor, center: torch.Tensor | None,
                 bound: float) -> tuple[float, float]:
        """`(bytes at no pixels, bytes a pixel)` of the peak, from two pieces of the frame."""
        rule = self.restorer.size_rule.for_tiles
        small = rule.padded(*(min(PROBE_SIDE, f) for f in frame))
        large = rule.padded(*(min(max(2 * PROBE_SIDE, s + 1), f) for s, f in zip(small, frame)))
        low, high = math.prod(small), math.prod(large)
        # What was freed but kept for the next use would hide what the pieces take.
        release(self.device)
        before = memory_in_use(self.device)
        # The first call also sets up libraries and caches, which is not a matter of pixels.
        self._probe(small, lq, center)
        first = self._probe(small, lq, center)
        steepest = max((first - before) / low, 4.0 * 12)
        if high == low or before + steepest * high > bound:
            return before, steepest
        last = self._probe(large, lq, center)
        # Memory that was freed and used again hides some of the small piece's: half of the steepest line
        # through the large piece is the least that is believed.
        slope = max((last - first) / (high - low), (last - before) / high / 2, 4.0 * 12)
        return max(last - slope * high, before), slope

    def _probe(self, size: Size, lq: torch.Tensor, center: torch.Tensor | None) -> int:
        piece = (..., slice(0, size[0]), slice(0, size[1]))
        with PeakMemory(self.device) as peak:
            # Never the compiled network, which would be compiled anew for a size that is met this once.
            self._forward(lq[piece], None if center is None else center[piece], self.restorer)
        return peak.bytes

    def _check_bound(self, peak: int, plan: TilePlan) -> None:
        if self.settings.max_memory_gb is None or self.settings.tile is not None:
            return
        if peak > self.settings.max_memory_gb * GIB and self._smaller(plan) is not None:
            raise _OverBoundError

    def _smaller(self, plan: TilePlan) -> TilePlan | None:
        """The next smaller tiles, or None at the smallest; remembered for the frames to come."""
        rule = self.restorer.size_rule.for_tiles
        smallest = rule.padded(1, 1)
        # Halve the longer side, in steps of the rule.
        axis = 0 if plan.tile[0] / smallest[0] > plan.tile[1] / smallest[1] else 1
        half = _floor(plan.tile[axis] / 2, rule.multiple[axis], smallest[axis])
        tile = (half, plan.tile[1]) if axis == 0 else (plan.tile[0], half)
        if tile == plan.tile:
            return None
        smaller = self._tiles(plan.frame, tile)
        self._proven = smaller.tile
        return smaller


def mixed(restored: torch.Tensor, center: torch.Tensor, strength: float) -> torch.Tensor:
    """Return `strength` of the restored picture and the rest of the center view, both (B, 3, H, W).

    Raises:
        OptionError: `strength` is not in [0, 1].
    """
    if not 0 <= strength <= 1:
        raise OptionError(f"strength: expected 0 (the center view as it is) to 1 (restored); found {strength!r}")
    return restored if strength == 1 else torch.lerp(center.to(restored), restored, strength)


class _OverBoundError(MemoryError):
    """A tile took more memory than the bound allows."""


def _floor(size: float, step: int, low: int) -> int:
    """The largest multiple of `step` not above `size`, at least `low`."""
    return max(int(size // step) * step, low)
