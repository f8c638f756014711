"""Samples per second per worker: our store against BasicSR's own PairedImageDataset on LMDB, side by side.

Same frames (1120 x 1680, 16 bit), same crops (256 x 256), one process, one thread, in alternating rounds, the
files in the page cache (as from the second epoch on where memory holds them). BasicSR decodes a whole PNG for
every crop (and keeps 8 of its 16 bits); the store slices its memory map.

    python benchmarks/loader.py                             # frames made from scikit-image's photographs
    python benchmarks/loader.py --store datasets/dpdd/train.lmdb --csv mine.csv
"""
import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.table import RESULTS, save, show
from k3dn_plugin.commands import run_tool

CROP = 256
FRAME = (1120, 1680)
VIEWS = ("left", "right", "center", "sharp")
PHOTOGRAPHS = ("coffee", "astronaut", "chelsea", "rocket")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="a store with all four views; made from photographs if left out")
    parser.add_argument("--scenes", type=int, default=8, help="how many scenes")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--csv", default=RESULTS / "loader.csv", metavar="FILE")
    arguments = parser.parse_args(argv)

    from k3dn_plugin.data import open_store
    from k3dn_plugin.data.loader import single_threaded
    from k3dn_plugin.data.store.basicsr import export_basicsr
    single_threaded()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print("preparing frames ...", file=sys.stderr)
        frames = read_frames(open_store(arguments.store), arguments.scenes) if arguments.store \
            else photographs(arguments.scenes)
        store, pair = write_stores(frames, folder)
        export_basicsr(pair, folder / "basicsr")
        readers = {
            ("BasicSR PairedImageDataset, LMDB", "center, sharp"): basicsr_pairs(folder / "basicsr"),
            ("k3dn_plugin store", "the same two"): our_dataset(pair.path, truth=False),
            ("k3dn_plugin store", "left, right, sharp"): our_dataset(store.path, center="mean"),
            ("k3dn_plugin store", "left, right, center, sharp"): our_dataset(store.path),
        }
        rates = measure(readers, arguments.seconds, arguments.rounds)
    rows = tabulate(rates)
    show(rows)
    save(rows, arguments.csv, packages=("torch", "numpy", "lmdb", "opencv-python", "basicsr"))


def photographs(count):
    """`count` scenes of four 16-bit frames from photographs, with a sensor's noise in the low bits."""
    import skimage
    from skimage.transform import resize
    draw = np.random.default_rng(0)
    for i in range(count):
        photograph = getattr(skimage.data, PHOTOGRAPHS[i % len(PHOTOGRAPHS)])()[..., :3]
        image = resize(np.roll(photograph, 37 * i, axis=1), FRAME, order=3)
        yield {view: to_16_bits(image + draw.normal(0, 0.002, image.shape)) for view in VIEWS}


def to_16_bits(image):
    return np.clip(65535 * image + 0.5, 0, 65535).astype(np.uint16)


def read_frames(store, count):
    """The first `count` scenes of a store."""
    for name in store.names[:count]:
        yield {view: store.read(name, view) for view in VIEWS}


def write_stores(scenes, folder):
    """Two stores: all four views; and center and sharp alone, as a pair, which is all that BasicSR reads."""
    from k3dn_plugin.data import StoreWriter
    with StoreWriter(folder / "views.lmdb", dataset="benchmark") as views, \
            StoreWriter(folder / "pair.lmdb", dataset="benchmark") as pair:
        for i, frames in enumerate(scenes):
            views.add(f"scene_{i:03d}", frames)
            pair.add(f"scene_{i:03d}", {"left": frames["center"], "right": frames["sharp"]})
        return views.finish(), pair.finish()


def our_dataset(path, **settings):
    from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
    return DualPixelDataset(store=str(path), crop_size=CROP, augment="dp_safe", **settings)


def basicsr_pairs(folder):
    import k3dn_plugin.bridges.basicsr  # noqa: F401 - makes BasicSR importable on today's torch
    # isort: split
    from basicsr.data.paired_image_dataset import PairedImageDataset
    return PairedImageDataset({
        "dataroot_lq": str(folder / "left.lmdb"), "dataroot_gt": str(folder / "right.lmdb"), "scale": 1,
        "io_backend": {"type": "lmdb"}, "phase": "train", "gt_size": CROP, "use_hflip": True,
        "use_rot": False})


def measure(readers, seconds, rounds):
    """Samples per second of every reader, in every round, after one unmeasured sample of each scene."""
    draw = np.random.default_rng(1)
    for dataset in readers.values():
        for i in range(len(dataset)):
            dataset[i]
    rates = {key: [] for key in readers}
    for _ in range(rounds):
        for key, dataset in readers.items():
            order = draw.integers(len(dataset), size=4096).tolist()
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                dataset[order[done % len(order)]]
                done += 1
            rates[key].append(done / (time.perf_counter() - began))
    return rates


def tabulate(rates):
    medians = {key: statistics.median(values) for key, values in rates.items()}
    baseline = next(iter(medians.values()))
    return [{"reader": reader, "frames": frames, "crop": f"{CROP} x {CROP}", "bits": 16,
             "samples_per_second": round(rate, 1), "milliseconds": round(1000 / rate, 3),
             "ratio": round(rate / baseline, 1)} for (reader, frames), rate in medians.items()]


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
