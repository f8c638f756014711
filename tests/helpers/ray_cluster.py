"""A Ray cluster of several nodes on this machine, each by a `ray start` of its own; nodes can be killed."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
# A dead node is noticed within seconds, not within the usual quarter of a minute.
QUICK = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
         "RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "3",
         "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
MEMORY = "80000000"   # bytes of a node's object store, about the least that Ray takes


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RayCluster:
    """The head and further nodes, each with two processors unless said otherwise."""

    def __init__(self, **variables):
        # A short path: the names of sockets below it may have 100 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="k3dnray", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        self.variables = variables
        self.nodes = []

    def __enter__(self):
        self.add("--head", "--port", self.address.partition(":")[2], "--include-dashboard", "false",
                 "--temp-dir", str(self.folder / "ray"))
        return self

    def __exit__(self, *exception):
        for node in reversed(self.nodes):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, *arguments, cpus=2, hidden=None):
        """Start a node, and return its process once it has joined; `hidden` is a folder that it does not see."""
        command = [str(RAY), "start", *(arguments or ("--address", self.address)), "--num-cpus", str(cpus),
                   "--object-store-memory", MEMORY, "--disable-usage-stats", "--block"]
        if hidden is not None:
            command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *command]
        log = self.folder / f"node{len(self.nodes)}.log"
        with open(log, "w") as output:
            node = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                    env={**os.environ, **QUICK, **self.variables})
        self.nodes.append(node)
        last = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > last:
                raise AssertionError(f"the node did not start:\n{log.read_text()}")
            time.sleep(0.1)
        return node

    def kill(self, node):
        """Kill a node with everything that runs on it, as a power cut would."""
        for process in [*descendants(node.pid), node.pid]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()


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
