"""Miniature copies of published layouts, with real names and tiny pictures."""
import numpy as np

from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.preparation.dpdd import official_pairs

SIZE = (24, 32)


def frames(seed, size=SIZE, dtype=np.uint16):
    """Four related pictures by view."""
    draw = np.random.default_rng(seed)
    sharp = draw.integers(0, np.iinfo(dtype).max, (*size, 3), dtype, endpoint=True)
    return {"sharp": sharp, "center": sharp // 2 + 5, "left": np.roll(sharp, 1, 1),
            "right": np.roll(sharp, -1, 1)}


def dpdd(root, counts=None, dtype=np.uint16, portrait=()):
    """The authors' layout; `{split: {name: frames}}` of what was written."""
    written = {}
    for split, count in (counts or {"train": 4, "val": 2, "test": 3}).items():
        for number, (name, target) in enumerate(list(official_pairs(split).items())[:count]):
            views = frames(number, SIZE[::-1] if number in portrait else SIZE, dtype)
            write_image(root / f"{split}_l/source/{name}_L.png", views["left"])
            write_image(root / f"{split}_r/source/{name}_R.png", views["right"])
            write_image(root / f"{split}_c/source/{name}.png", views["center"])
            write_image(root / f"{split}_c/target/{target}.png", views["sharp"])
            written.setdefault(split, {})[name] = views
    return written


def restormer(root, split="test", count=3, crops="", names=None):
    """Restormer's layout: one name a scene in all four folders."""
    folders = {"inputL": "left", "inputR": "right", "inputC": "center", "target": "sharp"}
    written = {}
    for number, name in enumerate(names or list(official_pairs(split))[:count]):
        views = written[name] = frames(number)
        for folder, view in folders.items():
            write_image(root / split / "DPDD" / (folder + crops) / f"{name}.png", views[view])
    return written


def pairs(root, names=("one", "two"), views=("left", "right", "center", "sharp"), dtype=np.uint16):
    """One's own folders."""
    written = {}
    for number, name in enumerate(names):
        written[name] = {view: frame for view, frame in frames(number, dtype=dtype).items() if view in views}
        for view, frame in written[name].items():
            write_image(root / view / f"{name}.png", frame)
    return written
