"""Whether the pictures of a scene show that scene, by small gray copies of them compared over a whole split."""
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

SMALL = (12, 8)      # columns, rows: what even strong defocus leaves
UNLIKE, ALIKE = 0.2, 0.6
BELOW, ABOVE = 0.7, 0.9


@dataclass
class TruthCheck:
    """Collects scenes, then finds which sharp images and right views belong to another one.

    A picture is misplaced where it is unlike its own scene's blurred one (correlation below 0.2) and like that
    of another scene (above 0.6), or much less like its own than another's (below 0.7, above 0.9: on the
    Pixel 4 scenes own truths reach 0.97 and more, those of neighbouring scenes at most 0.62). Anything less
    clear is let pass: real scenes differ in light and motion, and frames of a video are like each other.
    """

    seen: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    tested: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, frames: Mapping[str, np.ndarray]) -> None:
        """Note a scene's frames (H, W, channels) by view; what is not there is passed over."""
        small = {view: _small(frames[view]) for view in ("left", "right", "center", "sharp") if view in frames}
        for view, beside in (("sharp", "center" if "center" in small else "left"), ("right", "left")):
            if view in small and beside in small:
                self.seen[view, name] = small[beside]
                self.tested.setdefault(view, {})[name] = small[view]

    def misplaced(self) -> list[tuple[str, str, str]]:
        """Return `(scene, view, scene that this view shows)`, sorted."""
        found = []
        for view, pictures in self.tested.items():
            names = sorted(pictures)
            seen = np.stack([self.seen[view, name].ravel() for name in names])
            for name in names:
                likeness = seen @ pictures[name].ravel()
                own, best = float(likeness[names.index(name)]), int(np.argmax(likeness))
                if own < UNLIKE and likeness[best] > ALIKE or own < BELOW and likeness[best] > ABOVE:
                    found.append((name, view, names[best]))
        return sorted(found)

    def doubtful(self) -> list[tuple[str, float]]:
        """Return `(scene, correlation)` of sharp images that are unlike their own blurred ones, the worst first."""
        own = {name: float((self.seen["sharp", name] * picture).sum())
               for name, picture in self.tested.get("sharp", {}).items()
               if picture.any() and self.seen["sharp", name].any()}
        return sorted(((name, value) for name, value in own.items() if value < UNLIKE), key=lambda item: item[1])


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of small gray copies of two frames (H, W, channels): 1 alike, about 0 unlike."""
    return float((_small(one) * _small(other)).sum())


def _small(frame: np.ndarray) -> np.ndarray:
    """Return the frame as a small gray picture of mean 0 and length 1 (0 for a flat one)."""
    small = cv2.resize(frame.mean(-1, dtype=np.float32), SMALL, interpolation=cv2.INTER_AREA)
    small -= small.mean()
    length = np.linalg.norm(small)
    return small / length if length > 0 else small
