"""A Ray cluster of several nodes on this machine, each by a `ray start` of its own; nodes can be killed.

Run as a program (`ray_cluster.py FOLDER`), it is the guard of a cluster: it ends all that belongs to the cluster when
its standard input ends, which happens however the tests' process ends.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import alive, descendants, free_port, kill_all

RAY = Path(sys.executable).with_name("ray")
MARK = "K3DN_TEST_CLUSTER"   # the variable by which processes are known to belong to a cluster
# A dead node is noticed within seconds, not within the usual quarter of a minute.
QUICK = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
         "RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "3",
         "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
ATTEMPTS = 3          # Ray gives a node half a minute to start, which a busy machine may not keep
MEMORY = "80000000"   # bytes of a node's object store, about the least that Ray takes


class RayCluster:
    """The head and further nodes, each with two processors unless said otherwise.

    What this process starts while the cluster is there belongs to it, and ends with it.
    """

    def __init__(self, **variables):
        # A short path: the names of sockets below it may have 100 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="k3dnray", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        self.variables = variables
        self.nodes = []
        self.guard = subprocess.Popen([sys.executable, __file__, str(self.folder)], stdin=subprocess.PIPE,
                                      start_new_session=True)

    def __enter__(self):
        os.environ[MARK] = str(self.folder)
        try:
            self.add("--head", "--port", self.address.partition(":")[2], "--include-dashboard", "false",
                     "--temp-dir", str(self.folder / "ray"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        os.environ.pop(MARK, None)
        self.guard.stdin.close()
        self.guard.wait()
        for node in self.nodes:
            node.wait()

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


def members(folder):
    """The processes of a cluster that are alive, and what these have started."""
    mark, found = f"{MARK}={folder}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # Ray's workers change their titles, and with them what is seen of their variables.
            known = mark in (entry / "environ").read_bytes().split(b"\0") or (
                str(folder).encode() in (entry / "cmdline").read_bytes())
        except OSError:
            continue
        if known and alive(entry.name) and int(entry.name) != os.getpid():
            found += [int(entry.name), *descendants(int(entry.name))]
    return set(found)


def main(folder):
    """Wait until whoever started this is gone, then end the cluster and remove its folder."""
    sys.stdin.read()
    while left := members(folder):
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
