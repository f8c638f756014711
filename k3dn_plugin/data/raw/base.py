"""What the readers of camera files share: the views that they give, the settings, and their registry."""
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from k3dn_plugin.data.image_metadata import ImageMetadata
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import open_file
from k3dn_plugin.registry import VIEW_READERS

Light = Literal["srgb", "linear"]
Axis = Literal["x", "y"]


@dataclass(frozen=True)
class ViewSettings:
    """What the user may choose.

    Attributes:
        light: of the views: encoded by the sRGB curve, as restorers expect, or linear.
        swap: exchange left and right.
        scale: shrink by this whole number by averaging areas, in linear light.
        axis: which pair of a quad-pixel set, or what a pair's size does not tell: "x" shifted along the columns, "y"
            along the rows.
        black_level: in place of the file's own, in its numbers; None takes what the file states.
        whole: keep the sensor's border that the camera's own pictures leave out.

    Raises:
        OptionError: a value is not one of these.
    """

    light: Light = "srgb"
    swap: bool = False
    scale: int = 1
    axis: Axis = "x"
    black_level: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("light", ("srgb", "linear")), ("axis", ("x", "y"))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"{name} {getattr(self, name)!r}: expected {' or '.join(map(repr, allowed))}")
        if self.scale < 1 or int(self.scale) != self.scale:
            raise OptionError(f"scale {self.scale}: expected a whole number, 1 or more (4 makes DPDD's size of "
                              "Canon's)")
        if self.black_level is not None and self.black_level < 0:
            raise OptionError(f"black_level {self.black_level}: expected 0 or more")


@dataclass(frozen=True)
class Views:
    """Left, right and center view of one shot.

    Attributes:
        left, right, center: (H, W, 3) RGB or (H, W, 1), uint16, 65535 being white; the center is the captured sum
            where the file has one, else the mean of the other two (in linear light).
        bits: 16.
        light: "srgb" or "linear".
        valid: (H, W) bool, False where the sum was clipped or a neighbor that the demosaicing used was; None where
            nothing says.
        disparity_axis: "x" where the views are shifted along the columns, "y" along the rows.
        metadata: what the file says and what was done: "kind", "camera", "black_level", "flip" (LibRaw's code of
            the camera's orientation: 0, 3, 5 or 6), "notes", ...
        picture: color profile, orientation and EXIF of shots that are pictures already; nothing of raw files.
    """

    left: np.ndarray
    right: np.ndarray
    center: np.ndarray
    light: Light
    valid: np.ndarray | None = None
    disparity_axis: Axis = "x"
    metadata: dict[str, Any] = field(default_factory=dict)
    picture: ImageMetadata = ImageMetadata()
    bits: int = 16

    @property
    def clipped_share(self) -> float:
        """Share of the pixels that are masked."""
        return 0.0 if self.valid is None else float(1 - self.valid.mean())

    def exchanged(self) -> "Views":
        """Return the same shot with left and right exchanged."""
        return replace(self, left=self.right, right=self.left,
                       metadata={**self.metadata, "swapped": not self.metadata.get("swapped", False)})


class ViewReader(ABC):
    """One kind of camera file.

    Attributes:
        name: of the reader, and of the layout of data preparation that uses it.
        title: one line for messages.
        suffixes: of the files, lower case.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def source(self, path: Path) -> Path | None:
        """Return what stands for the whole shot that the file or folder `path` belongs to, None if not of this kind.

        That is `path` itself for a raw file, the left view's file for a pair, and so on: equal for all files of one
        shot. Looks at names and at the first bytes only.

        Raises:
            DataError: it is of this kind, but a file that belongs to it is missing.
        """

    @abstractmethod
    def read(self, source: Path, settings: ViewSettings) -> Views:
        """Read the views of a shot.

        Raises:
            DataError: the file is damaged, cut off, or not a dual-pixel shot.
            DependencyError: a package that reads this kind is missing.
        """

    def files(self, source: Path) -> list[Path]:
        """Return all files of a shot, which nothing may overwrite."""
        return [source]

    def shot_name(self, source: Path) -> str:
        """Return what the shot is called: the beginning of its results' names."""
        return source.stem


def load_readers() -> dict[str, ViewReader]:
    """Return one reader of each kind, by name."""
    return {name: VIEW_READERS.get(name)() for name in VIEW_READERS.names()}


def first_bytes(path: Path, count: int = 16) -> bytes:
    """Return how a file begins.

    Raises:
        DataError: it is not there or cannot be read.
    """
    try:
        with open_file(path) as file:
            return file.read(count)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
