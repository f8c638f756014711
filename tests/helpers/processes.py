"""Processes and ports of tests that start several programs."""
import os
import signal
import socket
from pathlib import Path


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_all(process):
    """Kill a process with everything that it has started, as a power cut would."""
    for one in [*descendants(process.pid), process.pid]:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def state_and_parent(process):
    """The letter that says what a process does, and its parent; None where there is no such process."""
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return state, int(parent)


def alive(process):
    """Whether a process is there; one that has ended and that nobody has asked about is not."""
    found = state_and_parent(process)
    return found is not None and found[0] != "Z"


def descendants(process):
    """The processes that a process has started, and theirs; from the table of processes."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            found = state_and_parent(entry.name)
            if found is not None:
                parents[int(entry.name)] = found[1]
    found, rest = [], [process]
    while rest:
        children = [child for child, parent in parents.items() if parent == rest[0]]
        found += children
        rest = rest[1:] + children
    return found
