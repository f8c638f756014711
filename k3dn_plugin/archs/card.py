"""What a restorer says of itself, so that trainer, tiler, comparer, docs and tests need no special case."""
import math
from dataclasses import dataclass, replace
from typing import Literal

View = Literal["left", "right", "center"]


FAITHFUL_DB = 55.0   # of PSNR: less than half a gray level of an 8-bit picture


@dataclass(frozen=True)
class SizeRule:
    """Which heights and widths a network takes.

    Args:
        multiple: (rows, columns); H and W must be multiples of these.
        minimum: (rows, columns) below which the network cannot run.
        stride: (rows, columns) at whose multiples tiles of a frame start, beside those of `multiple`: the pixels to a
            cell of the coarsest features, where a network that pads inside takes other sizes too.
    """

    multiple: tuple[int, int] = (1, 1)
    minimum: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)

    def accepts(self, height: int, width: int) -> bool:
        """Whether the network runs at this size without padding."""
        return (height, width) == self.padded(height, width)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest size that the network takes and that holds `height` x `width`."""
        rows, columns = (math.ceil(max(size, low) / step) * step
                         for size, low, step in zip((height, width), self.minimum, self.multiple))
        return rows, columns

    @property
    def for_tiles(self) -> "SizeRule":
        """Return the rule of tiles, whose cells then lie where those of the whole frame do."""
        rows, columns = (math.lcm(step, cell) for step, cell in zip(self.multiple, self.stride))
        return replace(self, multiple=(rows, columns))


@dataclass(frozen=True)
class RestorerCard:
    """The facts about a restorer that the rest of the toolbox reads.

    Attributes:
        title, paper, year, venue: what to cite.
        official_license: of the published code (ours is Apache-2.0, written from the facts alone).
        views: which views the network takes, in the order in which it stacks them.
        channel_order: of each view, "rgb" or "bgr".
        value_range: what [0, 1] images are mapped to before the network, and back from after it.
        size_rule: sizes that the network takes; an instance may narrow it by its own `size_rule`.
        tiling: "exact" (the same picture whole or in overlapped tiles, away from borders), "approximate"
            (statistics over the whole image change a little) or "unsafe".
        half_precision: dtypes besides float32 that keep its accuracy: of "bfloat16", "float16".
        bfloat16_db: how near the output in bfloat16 stays to that in float32: PSNR in dB, as `benchmarks/precision.py`
            measures it for the default settings; None where nobody has measured.
        no_torch_export: why `torch.export` cannot hold the restorer; empty where it can.
        no_onnx: why ONNX cannot; empty where it can.
        recipe_source: where the training recipe comes from ("paper", "official code", "ours", ...).
        recurrent: whether it also takes (B, T, 6, H, W).
        view_order_matters: whether swapping left and right changes the result.
        receptive_margin: pixels of overlap that make tiling exact, or as near as it gets.
        notes: what a user should know besides.
    """

    title: str
    paper: str
    year: int
    venue: str
    official_license: str
    views: tuple[View, ...] = ("left", "right")
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: tuple[float, float] = (0.0, 1.0)
    size_rule: SizeRule = SizeRule()
    tiling: Literal["exact", "approximate", "unsafe"] = "exact"
    half_precision: tuple[str, ...] = ("bfloat16",)
    bfloat16_db: float | None = None
    no_torch_export: str = ""
    no_onnx: str = ""
    recipe_source: str = "ours"
    recurrent: bool = False
    view_order_matters: bool = True
    receptive_margin: int = 32
    notes: str = ""

    @property
    def bfloat16_is_faithful(self) -> bool:
        """Whether bfloat16 changes the output too little to matter: at least `FAITHFUL_DB` were measured."""
        return ("bfloat16" in self.half_precision and self.bfloat16_db is not None
                and self.bfloat16_db >= FAITHFUL_DB)
