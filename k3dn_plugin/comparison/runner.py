"""Runs the pieces of a comparison: several at a time, each resumable, with the time left."""
import json
import os
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from k3dn_plugin.errors import TrainingError
from k3dn_plugin.evaluation.results import write_json

POLL = 0.1


@dataclass(frozen=True)
class Piece:
    """One process's work: `spec` for the worker, finished when `done` lies there for the same spec."""

    title: str
    spec: dict
    folder: Path

    @property
    def done(self) -> Path:
        """The file that a finished piece leaves."""
        return Path(self.spec["done"])

    def is_done(self) -> bool:
        """Whether this very piece is finished; one with another spec is not."""
        return self.done.is_file() and _read(self.folder / f"{self.spec['work']}.json") == json.loads(
            json.dumps(self.spec))

    def result(self) -> dict:
        """What the finished piece left."""
        return json.loads(self.done.read_text(encoding="utf-8"))


def run_pieces(pieces, *, jobs: int = 1, devices=("cpu",), say=print):
    """Run all pieces that are not done, `jobs` at a time; those that are done are kept.

    A failed piece stops the rest from being started; what is done stays, and the same call goes on.

    Args:
        devices: names that running pieces take turns on ("cpu", or "cuda:0", "cuda:1", ...).

    Raises:
        TrainingError: a piece failed; the message names its log and shows the end of it.
    """
    waiting = deque(piece for piece in pieces if not piece.is_done())
    total, finished, began, running, failed = len(waiting), 0, time.monotonic(), {}, []
    free = deque(devices[number % len(devices)] for number in range(jobs))
    if len(pieces) > total:
        say(f"{len(pieces) - total} of {len(pieces)} pieces of work were done before and are kept")
    try:
        while running or (waiting and not failed):
            while waiting and free and not failed:
                piece, device = waiting.popleft(), free.popleft()
                say(f"start   {piece.title}")
                running[_start(piece, device, jobs)] = (piece, device)
            for process in [p for p in running if p.poll() is not None]:
                piece, device = running.pop(process)
                free.append(device)
                if process.returncode:
                    failed.append(piece)
                    continue
                finished += 1
                left = (time.monotonic() - began) / finished * (total - finished)
                say(f"done    {piece.title} ({finished} of {total}, about {left / 60:.0f} min left)")
            time.sleep(POLL)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    if failed:
        log = failed[0].folder / f"{failed[0].spec['work']}.log"
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:])
        raise TrainingError(f"{failed[0].title} failed; its log {log} ends with:\n{end}\nWhat is done is kept: mend "
                            "the cause and run the same command again")


def _start(piece, device, jobs):
    spec_path = piece.folder / f"{piece.spec['work']}.json"
    piece.done.unlink(missing_ok=True)
    write_json(spec_path, piece.spec)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[2]),
                                                 environment.get("PYTHONPATH", "")])
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    if device.startswith("cuda:"):
        environment["CUDA_VISIBLE_DEVICES"] = device.partition(":")[2]
    with open(piece.folder / f"{piece.spec['work']}.log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "k3dn_plugin.comparison.worker", str(spec_path)],
                                stdout=log, stderr=subprocess.STDOUT, env=environment)


def _read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
