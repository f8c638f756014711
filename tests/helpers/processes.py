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


def descendants(process):
    """The processes that a process has started, and theirs; from the table of processes."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    found, rest = [], [process]
    while rest:
        children = [child for child, parent in parents.items() if parent == rest[0]]
        found += children
        rest = rest[1:] + children
    return found
