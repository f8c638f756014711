"""What a data set says of itself, so that protocols, tables and docs need no special case."""
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DatasetCard:
    """The facts about a data set that the rest of the toolbox reads.

    Attributes:
        name: of the data set.
        hash: fingerprint of the stored content, or "" for data made on the fly.
        bit_depth: of the numbers as they were captured or published: 8, 14, 16.
        linear: whether values are linear light; sRGB as cameras write it otherwise.
        black_level: what was subtracted from the stored numbers, one a view where they differ.
        disparity_axis: along which the views are shifted.
        center: whether `center` is a captured combined view or the mean of left and right.
        truth: whether samples have `gt`.
        maps: which of "disparity", "defocus" and "depth" samples have, with their units.
        augment: the augmentation that samples go through.
        licence, source: of the data.
        facts: everything the store's manifest says.
    """

    name: str
    hash: str = ""
    bit_depth: int = 8
    linear: bool = False
    black_level: float | dict[str, float] = 0
    disparity_axis: Literal["x", "y"] = "x"
    center: Literal["captured", "mean"] = "mean"
    truth: bool = True
    maps: dict[str, str] = field(default_factory=dict)
    augment: str = "none"
    licence: str = ""
    source: str = ""
    facts: dict = field(default_factory=dict)
