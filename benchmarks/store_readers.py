"""Many processes read crops out of one store, as the loaders of many GPUs do: does the store hold, and what is read?

Each process takes random crops of random scenes, on its own, for some seconds; each crop is compared with what was
written. `cold` begins with the file out of the page cache, so that what comes from the disk (or would come over the
network) is counted; `warm` begins with all of it in memory. Rates belong to a machine with few cores and 64 processes
share them: what counts is the processor's time for a sample (apart for a process's first look at a scene, when it
compares whole frames with their hashes), that none reads a wrong pixel, and what comes from the disk.

    python benchmarks/store_readers.py --processes 1 8 64 --seconds 10
"""
import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.table import RESULTS, save, show
from k3dn_plugin.commands import run_tool

FRAME, CROP = (1120, 1680), 256
VIEWS = ("left", "right", "center", "sharp")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="that each process reads")
    parser.add_argument("--scenes", type=int, default=8, help="in the store, 45 MB each")
    parser.add_argument("--size", nargs=2, type=int, default=FRAME, metavar=("ROWS", "COLUMNS"), help="of the frames")
    parser.add_argument("--crop", type=int, default=CROP)
    parser.add_argument("--folder", help="where the store is made, e.g. on a network file system; default: temporary")
    parser.add_argument("--csv", default=RESULTS / "store_readers.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store = make_store(Path(folder) / "readers.lmdb", arguments.scenes, tuple(arguments.size))
        rows = [measure(store, count, cache, arguments) for cache in ("cold", "warm") for count in arguments.processes]
    show(rows)
    save(rows, arguments.csv, packages=("numpy", "lmdb"))


def frame_of(scene, view, size):
    """The numbers of a frame, of which any part can be computed again."""
    base = value_at(*np.mgrid[:size[0], :size[1]], scene, view)
    return np.stack([base, (base + 1) % 65536, (base * 3) % 65536], -1).astype(np.uint16)


def value_at(row, column, scene, view):
    """The first channel's number at one place, or at many."""
    return (row * 7919 + column * 104729 + scene * 15485863 + VIEWS.index(view) * 32452843) % 65536


def make_store(path, scenes, size):
    from k3dn_plugin.data import StoreWriter
    print("writing the store ...", file=sys.stderr)
    with StoreWriter(path, dataset="benchmark") as writer:
        for scene in range(scenes):
            writer.add(f"scene_{scene:03d}", {view: frame_of(scene, view, size) for view in VIEWS})
        writer.finish()
    return path


def measure(store, count, cache, arguments):
    data = store / "data.mdb"
    with open(data, "rb") as file:
        os.fsync(file.fileno())
        if cache == "cold":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(2**24):
                pass
    context = multiprocessing.get_context("fork")  # the packages are in memory once, as with a loader's workers
    begin, answers = context.Barrier(count), context.Queue()
    readers = [context.Process(target=read, args=(store, number, begin, answers, arguments)) for number in range(count)]
    for reader in readers:
        reader.start()
    found = [answers.get() for _ in readers]
    for reader in readers:
        reader.join()
    samples = sum(one["samples"] for one in found)
    waits = sorted(wait for one in found for wait in one["waits"])
    each = {key: sum(one[key] for one in found) / max(samples, 1) for key in ("disk", "minor", "major")}
    first, later = ([value for one in found for value in one[key]] for key in ("first", "later"))
    crop = len(VIEWS) * arguments.crop**2 * 6
    print(f"{cache}, {count} processes: {samples} samples", file=sys.stderr, flush=True)
    return {"cache": cache, "processes": count, "samples": samples, "wrong": sum(one["wrong"] for one in found),
            "samples_per_second": round(samples / arguments.seconds, 1),
            "median_ms": round(1000 * statistics.median(waits), 2),
            "p95_ms": round(1000 * waits[int(0.95 * len(waits))], 2),
            "first_looks": len(first), "first_cpu_ms": cpu_ms(first), "later_cpu_ms": cpu_ms(later),
            "crop_MB": round(crop / 1e6, 2),
            "disk_MB": round(each["disk"] / 1e6, 2), "faults": round(each["minor"] + each["major"], 1),
            "store_MB": round(data.stat().st_size / 1e6),
            "seconds": arguments.seconds}


def cpu_ms(seconds):
    """The mean in milliseconds, where there is one."""
    return round(1000 * statistics.mean(seconds), 2) if seconds else "-"


def read(store, number, begin, answers, arguments):
    """One process: random crops of random scenes, each compared with what was written."""
    from k3dn_plugin.data import open_store
    opened, draw, size = open_store(store), np.random.default_rng(number), tuple(arguments.size)
    begin.wait()
    before, disk = resource.getrusage(resource.RUSAGE_SELF), disk_bytes()
    waits, wrong, seen, spent = [], 0, set(), {"first": [], "later": []}
    end = time.perf_counter() + arguments.seconds
    while time.perf_counter() < end or not waits:
        scene = int(draw.integers(arguments.scenes))
        top, left = (int(draw.integers(length - arguments.crop + 1)) for length in size)
        began, cpu = time.perf_counter(), time.process_time()
        crops = [opened.read(f"scene_{scene:03d}", view, slice(top, top + arguments.crop),
                             slice(left, left + arguments.crop)) for view in VIEWS]
        waits.append(time.perf_counter() - began)
        # A frame that a process has not read before is compared with its hash.
        spent["later" if scene in seen else "first"].append(time.process_time() - cpu)
        seen.add(scene)
        # The corners say whether the crop is of this scene, view and place.
        for view, crop in zip(VIEWS, crops, strict=True):
            for row, column in ((0, 0), (-1, -1)):
                y, x = top + row % arguments.crop, left + column % arguments.crop
                wrong += int(crop[row, column, 0]) != value_at(y, x, scene, view)
    after = resource.getrusage(resource.RUSAGE_SELF)
    answers.put({"samples": len(waits), "waits": waits, "wrong": wrong, "disk": disk_bytes() - disk,
                 "minor": after.ru_minflt - before.ru_minflt, "major": after.ru_majflt - before.ru_majflt, **spent})


def disk_bytes():
    """Bytes that this process has had read from a disk; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes")), 0)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
