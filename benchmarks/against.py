"""Time this checkout against an older commit, side by side: `python benchmarks/against.py 769b698`.

The commit is checked out beside this one for the time of the run (`git worktree`); each case is timed in one process of
either side, in turns, so that a busy machine slows both. What counts is the ratio of the medians. CPU time stands
beside the wall time: where they differ much, something else kept the machine busy.

    python benchmarks/against.py 769b698 --only similarity k3dn_l --threads 2 --rounds 5
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cases import CASES  # noqa: E402
from benchmarks.table import RESULTS, save, show  # noqa: E402
from k3dn_plugin.errors import OptionError, run_tool  # noqa: E402

SHORT = 0.3   # seconds; a run that is shorter is timed right after another, see `Side.time`


class Side:
    """A process that times cases with the package of one checkout."""

    def __init__(self, checkout: Path, label: str, threads: int, extra: dict[str, str] | None = None):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads),
                       **(extra or {})}
        self.process = subprocess.Popen([sys.executable, str(ROOT / "benchmarks" / "cases.py"), str(checkout), label],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def time(self, case: str) -> dict:
        """Return what one run of a case took: `wall`, `cpu` (seconds), `peak` (bytes), `size` (what it ran on).

        The system wakes threads that have slept on the core of the one that wakes them, and moves them after some
        milliseconds. So a short run is timed right after an unmeasured one, as it would be in the middle of a network.
        """
        answer = self._run(case)
        return answer if answer["wall"] > SHORT else self._run(case)

    def _run(self, case: str) -> dict:
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise OptionError(f"the process that times {case} ended ({self.process.wait()}); its message is above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(60)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="cases whose names begin so")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--csv", default=RESULTS / "against.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    cases = [name for name in CASES if any(name.startswith(word) for word in arguments.only)]
    if not cases:
        raise OptionError(f"no case begins with {' or '.join(arguments.only)}; there are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        made = subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(other), arguments.commit],
                              capture_output=True, text=True)
        if made.returncode:
            raise OptionError(f"commit {arguments.commit} cannot be checked out: {made.stderr.strip()}")
        try:
            rows = [compare(case, other, arguments) for case in cases]
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(other)], capture_output=True)
    show(rows)
    save(rows, arguments.csv)


def compare(case: str, other: Path, arguments) -> dict:
    """Time one case on both sides in turns, and return its row."""
    sides = {"then": Side(other, "then", arguments.threads), "now": Side(ROOT, "now", arguments.threads)}
    load = os.getloadavg()[0]
    try:
        for side in sides.values():
            side.time(case)  # the first run also loads libraries
        found = {label: [] for label in sides}
        for _ in range(arguments.rounds):
            for label, side in sides.items():
                found[label].append(side.time(case))
    finally:
        for side in sides.values():
            side.close()
    middle = {label: {key: statistics.median(run[key] for run in runs) for key in ("wall", "cpu")}
              for label, runs in found.items()}
    if load > len(os.sched_getaffinity(0)):
        print(f"note: load {load:.1f} on {len(os.sched_getaffinity(0))} cores; only ratios of CPU time can be believed",
              file=sys.stderr)
    return {"case": case, "size": found["now"][0]["size"], "then_s": round(middle["then"]["wall"], 4),
            "now_s": round(middle["now"]["wall"], 4),
            "times_faster": round(middle["then"]["wall"] / middle["now"]["wall"], 2),
            "times_faster_cpu": round(middle["then"]["cpu"] / middle["now"]["cpu"], 2),
            "then_peak_GiB": round(max(run["peak"] for run in found["then"]) / 2 ** 30, 2),
            "now_peak_GiB": round(max(run["peak"] for run in found["now"]) / 2 ** 30, 2),
            "threads": arguments.threads, "load": round(load, 1)}


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
