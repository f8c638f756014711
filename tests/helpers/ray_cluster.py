"""A Ray cluster of several nodes on this machine, each by a `ray start` of its own; nodes can be killed."""
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import free_port, kill_all

RAY = Path(sys.executable).with_name("ray")
# A dead node is noticed within seconds, not within the usual quarter of a minute.
QUICK = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
         "RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "3",
         "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
ATTEMPTS = 3          # Ray gives a node half a minute to start, which a busy machine may not keep
MEMORY = "80000000"   # bytes of a node's object store, about the least that Ray takes


class RayCluster:
    """The head and further nodes, each with two processors unless said otherwise."""

    def __init__(self, **variables):
        # A short path: the names of sockets below it may have 100 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="k3dnray", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        self.variables = variables
        self.nodes = []

    def __enter__(self):
        try:
            self.add("--head", "--port", self.address.partition(":")[2], "--include-dashboard", "false",
                     "--temp-dir", str(self.folder / "ray"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        for node in reversed(self.nodes):
            kill_all(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, *arguments, cpus=2, hidden=None):
        """Start a node, and return its process once it has joined; `hidden` is a folder that it does not see."""
        command = [str(RAY), "start", *(arguments or ("--address", self.address)), "--num-cpus", str(cpus),
                   "--object-store-memory", MEMORY, "--disable-usage-stats", "--block"]
        if hidden is not None:
            command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *command]
        for attempt in range(ATTEMPTS):
            log = self.folder / f"node{len(self.nodes)}.log"
            with open(log, "w") as output:
                node = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                        env={**os.environ, **QUICK, **self.variables})
            self.nodes.append(node)
            last = time.monotonic() + 300
            while node.poll() is None and time.monotonic() < last:
                if "Ray runtime started" in log.read_text():
                    return node
                time.sleep(0.1)
            kill_all(node)
            if "timed out during startup" not in log.read_text() or attempt == ATTEMPTS - 1:
                raise AssertionError(f"the node did not start:\n{log.read_text()}")
