"""What it brings to let threads soon wait asleep and freed memory stay, alone and beside other work.

Each case of `benchmarks/cases.py` is timed in processes of this checkout that differ in their environment alone, in
turns, with no other process of ours (`others` 0) and beside some that compute all the time. `plain` is what a process
does that asks for nothing.

    python benchmarks/process.py
    python benchmarks/process.py --cases k3dn_s restormer --others 0 4 --rounds 5
"""
import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.against import Side  # noqa: E402
from benchmarks.table import RESULTS, busy, cores, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402

# GOMP_SPINCOUNT, or a policy, keeps `prepare_process` from choosing how threads wait; a tunable, from keeping memory.
FORGET = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
DEFAULT = {"GOMP_SPINCOUNT": "300000"}   # libgomp's own value where there are as many cores as threads
WAYS = {"plain": {**DEFAULT, **FORGET}, "asleep at once": {"OMP_WAIT_POLICY": "PASSIVE", **FORGET},
        "asleep soon": FORGET, "kept memory": DEFAULT, "asleep soon, kept memory (a command)": {}}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["k3dn_s", "drbnet"], metavar="NAME")
    parser.add_argument("--others", nargs="+", type=int, default=[0, 4], metavar="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--csv", default=RESULTS / "process.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    rows = []
    for case in arguments.cases:
        for others in arguments.others:
            rows += compare(case, others, arguments)
    show(rows)
    save(rows, arguments.csv)


def compare(case, others, arguments):
    """Rows of one case beside `others` busy processes."""
    load = busy()
    with ExitStack() as stack:
        sides = {way: stack.enter_context(closing(Side(ROOT, "now", arguments.threads, environment)))
                 for way, environment in WAYS.items()}
        for _ in range(others):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(other.wait)
            stack.callback(other.kill)
        for side in sides.values():
            side.time(case)
        runs = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way, side in sides.items():
                runs[way].append(side.time(case))
    wall = {way: statistics.median(run["wall"] for run in found) for way, found in runs.items()}
    cpu = {way: statistics.median(run["cpu"] for run in found) for way, found in runs.items()}
    return [{"case": case, "size": runs[way][0]["size"], "others": others, "way": way, "seconds": round(wall[way], 4),
             "cpu_seconds": round(cpu[way], 4), "times_faster": round(wall["plain"] / wall[way], 2),
             "times_faster_cpu": round(cpu["plain"] / cpu[way], 2),
             "peak_GiB": round(max(run["peak"] for run in runs[way]) / 2 ** 30, 2), "threads": arguments.threads,
             "load": load} for way in WAYS]


if __name__ == "__main__":
    os.environ.pop("OMP_WAIT_POLICY", None)
    raise SystemExit(run_tool(main))
