"""Miniature copies of published layouts, with real names and tiny pictures."""
import numpy as np
import pytest
import raw_files

from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.preparation.dpdd import official_pairs
from k3dn_plugin.data.store.manifest import MAPS
from k3dn_plugin.registry import PREPARERS

SIZE = (24, 32)


def frames(seed, size=SIZE, dtype=np.uint16):
    """Four related pictures by view."""
    draw = np.random.default_rng(seed)
    sharp = draw.integers(0, np.iinfo(dtype).max, (*size, 3), dtype, endpoint=True)
    return {"sharp": sharp, "center": sharp // 2 + 5, "left": np.roll(sharp, 1, 1),
            "right": np.roll(sharp, -1, 1)}


def make(name, root):
    """A miniature of the layout called `name`: as its preparer declares, or by the function below of that name."""
    preparer = PREPARERS.get(name)
    assert preparer.miniature or name in globals(), (
        f"{preparer.__name__} needs a `miniature`: the files of a small copy of its layout")
    return declared(preparer, root) if preparer.miniature else globals()[name](root)


def has_truth(name):
    """Whether the scenes of `make(name, ...)` have sharp images."""
    views = {view for _, view in PREPARERS.get(name).miniature.values()}
    return "sharp" in views if views else name not in ("cuhk", "dpd_disp", "raw", "pixel_app", "quad_pixel")


def declared(preparer, root):
    """The files of `preparer.miniature`; the frames by scene."""
    scenes = sorted({scene for scene, _ in preparer.miniature.values()})
    eight = preparer.bits == 8 or any(place.lower().endswith((".jpg", ".jpeg", ".bmp")) for place in preparer.miniature)
    written = {scene: frames(number, dtype=np.uint8 if eight else np.uint16) for number, scene in enumerate(scenes)}
    for place, (scene, view) in preparer.miniature.items():
        if view in MAPS:
            written[scene][view] = written[scene]["sharp"][..., 0]
        if place.endswith(".pfm"):
            write_pfm(root / place, written[scene][view].astype(np.float32))
        else:
            write_image(root / place, written[scene][view])
    return written


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


def pixel4(root, names=("001", "002")):
    """Xin et al.'s layout at its real size; `(raw left, raw right, truth)` by scene."""
    draw, written = np.random.default_rng(0), {}
    rows, columns = np.mgrid[:1512, :2016]
    texture = draw.integers(1009, 9000, (126, 168), np.uint16).repeat(12, 0).repeat(12, 1)
    for number, name in enumerate(names):
        left = texture + np.uint16(10 * number)
        right = np.roll(left, 3, 1)
        truth = draw.integers(0, 65536, (1008, 1344), np.uint16)
        write_image(root / f"{name}_left.png", left)
        write_image(root / f"{name}_right.png", right)
        write_image(root / "gt_all_in_focus_im" / f"{name}_gt.png", truth)
        write_image(root / "gt_defocus_map" / f"{name}_gt.png", (truth >> 8).astype(np.uint8))
        written[name] = left, right, truth
    for view, slope in (("left", 1), ("right", -1)):
        sheet = 4000 + slope * (columns - 1008) // 2 + rows // 8
        write_image(root / "calibration" / f"white_sheet_{view}.png", sheet.astype(np.uint16))
    return written


def pixel4_small(root, names=("001", "002", "017"), size=(72, 96)):
    """The same layout in small, with truths of their own scenes; raw views and truth by scene."""
    written = {}
    rows, columns = np.mgrid[:size[0], :size[1]]
    crop = np.s_[size[0] // 6:-(size[0] // 6), size[1] // 6:-(size[1] // 6)]
    for number, name in enumerate(names):
        draw = np.random.default_rng(number)
        blocks = draw.integers(1009, 16400, (size[0] // 6, size[1] // 6)).repeat(6, 0).repeat(6, 1)
        left = np.clip(blocks + draw.integers(-40, 40, size), 1009, 16400).astype(np.uint16)
        right = np.roll(left, 1, 1)
        truth = (np.maximum(left[crop].astype(float) - 1024, 0) / 16383 * 65535).astype(np.uint16)
        truth[[0, -1]] = truth[:, [0, -1]] = 0
        for place, frame in ((f"{name}_left", left), (f"{name}_right", right), (f"gt_all_in_focus_im/{name}_gt", truth),
                             (f"gt_defocus_map/{name}_gt", (truth >> 8).astype(np.uint8))):
            write_image(root / f"{place}.png", frame)
        written[name] = left, right, truth
    for view, slope in (("left", 1), ("right", -1)):
        sheet = 4000 + slope * 8 * (columns - size[1] // 2) + rows
        write_image(root / "calibration" / f"white_sheet_{view}.png", sheet.astype(np.uint16))
    return written


def dpd_disp(root, names=("005", "006")):
    """Punnappurath et al.'s layout."""
    written = {}
    for number, name in enumerate(names):
        views = written[name] = frames(number, dtype=np.uint8)
        for ending, view in (("L.jpg", "left"), ("R.jpg", "right"), ("B.jpg", "center")):
            write_image(root / f"{name}_{ending}", views[view])
        depth = views["sharp"][..., 0].copy()
        depth[:3] = 0
        write_image(root / f"{name}_D.tif", depth)
        (root / f"{name}_D.tif").rename(root / f"{name}_D.TIF")
    return written


def sdirt(root, names=("0600", "1500")):
    """Sdirt's wall at two distances; the frames by scene, `sharp` being the left view at F/20."""
    written = {}
    for number, name in enumerate(names):
        views = written[name] = frames(number, dtype=np.uint8)
        views["sharp_right"] = views["sharp"] ^ 1
        for view, place in (("left", "f4/l"), ("right", "f4/r"), ("sharp", "f20/l"), ("sharp_right", "f20/r")):
            write_image(root / name / f"{place}.png", views[view])
    return written


def realdof(root, names=("01", "02")):
    """RealDOF's layout."""
    written = {}
    for number, name in enumerate(names):
        written[name] = frames(number, dtype=np.uint8)
        write_image(root / "source" / f"{name}.png", written[name]["center"])
        write_image(root / "target" / f"{name}.png", written[name]["sharp"])
    return written


def lfdof(root):
    """LFDOF's layout: two inputs a scene."""
    for split, scenes in (("train", ("IMG_1275", "IMG_1278")), ("test", ("IMG_2162",))):
        for number, scene in enumerate(scenes):
            views = frames(number, dtype=np.uint8)
            folder = root / f"{split}_data"
            write_image(folder / "ground_truth" / f"{scene}.png", views["sharp"])
            for aperture, view in enumerate(("left", "right")):
                write_image(folder / "input" / scene / f"{scene}_ap{aperture + 1}_00.png", views[view])


def cuhk(root):
    """A flat folder, one portrait."""
    for number, size in enumerate((SIZE, SIZE[::-1])):
        write_image(root / f"out_of_focus{number:04d}.jpg", frames(number, size, np.uint8)["sharp"])


def dddsyn(root):
    """DDDNet's simulated NYU pairs."""
    for folder, names in (("training", ("0001", "0002")), ("testing", ("6001",)), ("testing1", ("6001",))):
        for number, name in enumerate(names):
            views = frames(number, dtype=np.uint8)
            for place, view in (("dp/{}_l.png", "left"), ("dp/{}_r.png", "right"), ("gt/{}_m.png", "sharp")):
                write_image(root / "NYU" / folder / place.format(name), views[view])
            write_pfm(root / "NYU" / folder / "disp" / f"{name}_dm.pfm",
                      np.arange(SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE))


def write_pfm(path, values, order="<"):
    """Rows from the bottom up, as PFM has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{-1.0 if order == '<' else 1.0}\n".encode()
    path.write_bytes(head + np.ascontiguousarray(values[::-1]).astype(f"{order}f4").tobytes())


def rdpd(root):
    """RDPD's synthetic sequences."""
    for split in ("train", "test"):
        for sequence in ("seq_001", "seq_002"):
            for frame in range(3):
                views = frames(frame, dtype=np.uint8)
                for place, view in (("l/source", "left"), ("r/source", "right"), ("c/source", "center"),
                                    ("c/target", "sharp")):
                    write_image(root / f"{split}_{place}" / sequence / f"{frame:06d}.png", views[view])


def raw(root):
    """A two-frame CR2 and a two-sample DNG."""
    pytest.importorskip("rawpy", reason="the extra [raw] is not installed")
    root.mkdir(parents=True, exist_ok=True)
    shots = (("IMG_0001.CR2", raw_files.write_cr2), ("IMG_0002.dng", raw_files.write_dng))
    for number, (name, write) in enumerate(shots):
        mosaics = raw_files.dual_pixel_frames(number, (32, 48))
        write(root / name, [mosaics["sum"], mosaics["left"]])


def pixel_app(root):
    """Two pairs of Google's capture app, one of a turned phone."""
    for number, name in enumerate(("desk", "garden")):
        mosaics = raw_files.dual_pixel_frames(number, (24, 64))
        for view in ("left", "right"):
            numbers = mosaics[view] * 12
            raw_files.write_pgm(root / f"{name}_{view}.pgm", numbers.T if number else numbers)


def quad_pixel(root):
    """Two quad-pixel sets, one in a folder of its own, one by names."""
    for number, place in enumerate(("shot/", "other_")):
        views = frames(number, dtype=np.uint8)
        for corner, view in zip(("lt", "rt", "lb", "rb"), ("left", "right", "center", "sharp"), strict=True):
            write_image(root / f"{place}{corner}.png", views[view])
