"""Does each sharp image show its own scene? Small grey pictures of both are compared over a whole split."""
from dataclasses import dataclass, field

import numpy as np

SMALL = (12, 8)      # columns, rows: what even strong defocus leaves
UNLIKE, ALIKE = 0.2, 0.6


@dataclass
class TruthCheck:
    """Collects scenes, then tells which sharp images belong to another one.

    A sharp image is misplaced where it is unlike its own blurred image (correlation below 0.2) and like that of
    another scene (above 0.6). Anything less clear is let pass: real scenes differ in light and motion.
    """

    blurred: dict[str, np.ndarray] = field(default_factory=dict)
    sharp: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, frames):
        """Note a scene's frames (H, W, channels); those without a truth are passed over."""
        if "sharp" in frames:
            seen = frames["center"] if "center" in frames else frames["left"]
            self.blurred[name], self.sharp[name] = _small(seen), _small(frames["sharp"])

    def misplaced(self) -> list[tuple[str, str]]:
        """`(scene, scene that its sharp image shows)`, sorted."""
        names = sorted(self.sharp)
        found = []
        for name in names:
            if float((self.sharp[name] * self.blurred[name]).sum()) >= UNLIKE:
                continue
            likeness = [float((self.sharp[name] * self.blurred[other]).sum()) for other in names]
            best = int(np.argmax(likeness))
            if likeness[best] > ALIKE:
                found.append((name, names[best]))
        return found


def _small(frame):
    """The frame as a small grey picture of mean 0 and length 1 (0 for a flat one)."""
    import cv2
    small = cv2.resize(frame.mean(-1).astype(np.float32), SMALL, interpolation=cv2.INTER_AREA)
    small -= small.mean()
    length = np.linalg.norm(small)
    return small / length if length > 0 else small
