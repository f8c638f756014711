"""Comparisons on a Ray cluster: each job is a task with its resources, on whichever node has room.

A task starts the same worker process as on one machine (`comparison/worker.py`) and waits for it. Ray runs it again
elsewhere when its node dies; the job then goes on from what lies in the comparison's folder, which all nodes share.
No other file imports ray.
"""
# Where ray is not installed, the type checker takes this file for it.
# pyright: reportAttributeAccessIssue=false
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from types import ModuleType
from typing import Any

from k3dn_plugin.comparison.backends.local import STOP_SECONDS, python_path
from k3dn_plugin.comparison.jobs import Backend, Job, Needs, Shared
from k3dn_plugin.comparison.probe import ANSWER, differences, look, question
from k3dn_plugin.comparison.schedule import SETTLE_SECONDS
from k3dn_plugin.errors import DependencyError, OptionError, TrainingError

RETRIES = 20            # of a job whose nodes die
CONNECT_SECONDS = 10    # for the head to take a connection
PROBE_SECONDS = 300     # for a node to answer
HEAD_SECONDS = 30       # without an answer of the head; Ray itself ends this process after 60
ASK_SECONDS = 5         # between two looks at the head
ADVICE = ("The nodes must see the working folder, the folder of the results and the data at the same paths, and "
          "have the same packages: see docs/guides/cluster.md")


def ray_library() -> ModuleType:
    """Return the package ray.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import ray  # optional: the extra [cluster]
    except ImportError as error:
        raise DependencyError(f"--cluster needs the package ray, which cannot be imported ({error}). Install it: "
                              'pip install "ray>=2.40" (the extra [cluster]); without --cluster, jobs run on this '
                              "machine") from None
    return ray


class RayBackend(Backend):
    """Runs jobs as tasks of a Ray cluster.

    Args:
        address: "auto" for the cluster that this machine is part of, or HOST:PORT of its head.

    Raises:
        DependencyError: ray is not installed.
        OptionError: there is no cluster at the address.
    """

    remote = True

    def __init__(self, address: str = "auto"):
        self._ray = ray_library()
        if address.startswith("ray://"):
            raise OptionError(f"--cluster {address}: expected auto or HOST:PORT. Ray's client cannot see the shared "
                              "folders: start the comparison on a node of the cluster")
        self._connected = self._ray.is_initialized()
        try:
            if address != "auto" and not self._connected:
                # Asked first, because Ray waits for minutes for a head that is not there.
                _connect(address, CONNECT_SECONDS)
            if not self._connected:
                self._ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise OptionError(f"--cluster {address}: no Ray cluster answers there "
                              f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Start one "
                              "(ray start --head; on other nodes: ray start --address HEAD:6379), or leave --cluster "
                              "out to run on this machine") from None
        self._task = self._ray.remote(_make_task())
        self._asked: dict | None = None
        self._seen: dict | None = None
        self._probed: list[str] = []
        self._logs: dict[Hashable, Path] = {}
        self._unwritten: dict[Path, str] = {}
        self._head: str = self._ray.get_runtime_context().gcs_address
        self._head_asked = self._head_answered = time.monotonic()
        self._head_lost = False

    def __enter__(self) -> "RayBackend":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, which goes on without us; a connection that was there before stays."""
        if not self._connected and not self._head_lost:
            self._ray.shutdown()

    def check(self, shared: Shared) -> None:
        """Ask every node that could run a job what it sees of the comparison; all must see the same as this machine."""
        nodes = self._fitting(shared.needs)
        if not nodes:
            raise OptionError(f"no node of the cluster has what a job needs ({_words(shared.needs)}); "
                              f"found {self._nodes_in_words()}. Add a node, or ask for less "
                              "(--cpus-per-job, --devices, --max-memory-gb)")
        self._asked = question(shared)
        self._seen = look(self._asked)
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        order = self._order(None, Needs())
        answers = {node["NodeID"]: self._task.options(
            name="k3dn probe", num_cpus=0, max_retries=2,
            scheduling_strategy=pinned(node["NodeID"], soft=False)).remote(order) for node in nodes}
        faults = []
        for node in nodes:
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                faults += [f"node {name}: {one}" for one in
                           self._lacking(self._ray.get(answers[node["NodeID"]], timeout=PROBE_SECONDS))]
            except self._ray.exceptions.RayError as error:
                faults.append(f"node {name}: {_reason(error)}")
        if faults:
            raise OptionError("\n".join([*dict.fromkeys(faults), ADVICE]))
        self._probed = [node["NodeID"] for node in nodes]

    def has_room(self, job: Job) -> bool:
        """Whether a job can be queued: always; the queue is the cluster's."""
        return True

    def submit(self, job: Job) -> Hashable:
        """Queue the job."""
        job.write_spec()
        needs = job.needs
        memory = {} if needs.memory_gb is None else {"memory": int(needs.memory_gb * 2**30)}
        handle = self._task.options(name=job.title, num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=RETRIES,
                                    scheduling_strategy="SPREAD", **memory).remote(self._order(job, needs))
        self._logs[handle] = job.log_path
        return handle

    def poll(self, handle: Any) -> int | None:
        """Return the exit status once the task has ended; what Ray or the node says of it goes to the job's log."""
        self._ask_head()
        ready, _ = self._ray.wait([handle], timeout=0)
        if not ready:
            return None
        try:
            answer = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            answer = {"status": 1, "text": _reason(error)}
        if "answer" in answer:
            answer = {"status": 1, "text": "\n".join(
                [*(f"node {answer['host']}: {one}" for one in self._lacking(answer)), ADVICE])}
        path = self._logs.pop(handle)
        if answer["text"]:
            try:
                with open(path, "a", encoding="utf-8") as log:
                    log.write(f"error: {answer['text']}\n")
            except OSError:  # the job's folder is gone
                self._unwritten[path] = f"error: {answer['text']}"
        return int(answer["status"])

    def log(self, job: Job) -> str:
        """Return what the job has printed, and what could not be written there."""
        return "\n".join(filter(None, [super().log(job), self._unwritten.get(job.log_path)]))

    def cancel(self, handles: Collection[Any]) -> None:
        """Cancel the tasks: workers save their states, queued tasks never start."""
        if self._head_lost:
            return  # the nodes give up, too, and their workers save
        for handle in handles:
            self._logs.pop(handle, None)
            self._ray.cancel(handle, force=False)
        if handles:
            self._ray.wait(list(handles), num_returns=len(handles), timeout=STOP_SECONDS + 10)

    def _ask_head(self) -> None:
        """See now and then whether the head is still there: without it, Ray ends this process with its own words.

        Raises:
            TrainingError: it has not answered for some time.
        """
        now = time.monotonic()
        if now - self._head_asked < ASK_SECONDS:
            return
        try:
            _connect(self._head, ASK_SECONDS)
            self._head_answered = time.monotonic()
        except OSError as error:
            if time.monotonic() - self._head_answered > HEAD_SECONDS:
                self._head_lost = True
                raise TrainingError(f"the head of the cluster, {self._head}, has not answered for {HEAD_SECONDS} s "
                                    f"({error}). What is done is kept: start the cluster again (ray stop on every "
                                    "node, then ray start) and run the same command, or run it without --cluster"
                                    ) from None
        self._head_asked = time.monotonic()

    def _fitting(self, needs: Needs) -> list[dict]:
        return [node for node in self._ray.nodes() if node["Alive"] and _fits(node["Resources"], needs)]

    def _nodes_in_words(self) -> str:
        found = [f"{node['NodeManagerHostname']} with {node['Resources'].get('CPU', 0):g} CPUs, "
                 f"{node['Resources'].get('GPU', 0):g} GPUs" for node in self._ray.nodes() if node["Alive"]]
        return "; ".join(found) or "no node"

    def _order(self, job: Job | None, needs: Needs) -> dict:
        """What a task is to do, as plain data; without a job it only answers the probe."""
        return {"module": None if job is None else job.module,
                "spec": None if job is None else os.path.abspath(job.spec_path),
                "log": None if job is None else os.path.abspath(job.log_path), "key": None if job is None else job.key,
                "folder": os.getcwd(), "python_path": python_path(), "threads": needs.cpus, "stop": STOP_SECONDS,
                "settle": SETTLE_SECONDS,
                "variables": {name: value for name, value in os.environ.items() if name.startswith("K3DN_")},
                "asked": json.dumps(self._asked), "seen": json.dumps(self._seen), "probed": self._probed,
                "answer_mark": ANSWER}

    def _lacking(self, answer: dict) -> list[str]:
        """What the node that gave an answer lacks."""
        if answer["answer"] is None:
            return [answer["text"]]
        assert self._asked is not None and self._seen is not None  # `check` comes before any task
        return differences(self._asked, self._seen, json.loads(answer["answer"]))


def _connect(address: str, seconds: float) -> None:
    """See whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), seconds).close()


def _fits(resources: dict, needs: Needs) -> bool:
    return (resources.get("CPU", 0) >= needs.cpus and resources.get("GPU", 0) >= needs.gpus
            and resources.get("memory", 0) >= (needs.memory_gb or 0) * 2**30)


def _words(needs: Needs) -> str:
    memory = f", {needs.memory_gb:g} GB of memory" if needs.memory_gb else ""
    return f"{needs.cpus} CPUs, {needs.gpus} GPUs{memory}"


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which names the cause."""
    cause = getattr(error, "cause", None)
    return (str(cause or error).strip().splitlines() or [type(error).__name__])[-1]


def _make_task() -> Callable[[dict], dict]:
    """Return the function that runs on nodes.

    It is made here so that Ray sends it as a whole: a node without this package gives an answer that says so, not an
    error of unpickling. For the same reason it uses the standard library alone.
    """
    def k3dn_job(order: dict) -> dict:
        # On the node, where only Ray is certain to be there.
        import json
        import os
        import socket
        import subprocess
        import sys
        import time

        import ray  # as above
        host = socket.gethostname()
        environment = {**os.environ, **order["variables"], "K3DN_NODE": ray.get_runtime_context().get_node_id()[:8],
                       "OMP_NUM_THREADS": str(order["threads"])}
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (order["python_path"], os.environ.get("PYTHONPATH")) if part)

        def answered() -> dict:
            """Return the answer to the probe, and what the process said where it gave none."""
            if not os.path.isdir(order["folder"]):
                return {"answer": None, "host": host,
                        "text": f"expected the working folder {order['folder']}; found none at this path"}
            done = subprocess.run([sys.executable, "-m", "k3dn_plugin.comparison.probe"], input=order["asked"],
                                  capture_output=True, text=True, env=environment, cwd=order["folder"])
            lines = [line for line in done.stdout.splitlines() if line.startswith(order["answer_mark"])]
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"answer": lines[-1][len(order["answer_mark"]):] if lines else None, "host": host,
                    "text": f"expected that {sys.executable} can run k3dn_plugin; found: {last}"}

        if order["spec"] is None:
            return answered()
        node = ray.get_runtime_context().get_node_id()
        if node not in order["probed"]:
            # It came after the comparison had begun.
            found, expected = answered(), json.loads(order["seen"])
            seen = json.loads(found["answer"] or "{}")
            # A package that only this node has is no difference.
            versions = {name: value for name, value in seen.get("versions", {}).items() if name in expected["versions"]}
            if {**seen, "host": "", "versions": versions} != {**expected, "host": ""}:
                return found
        last = time.monotonic() + order["settle"]
        while True:
            try:
                with open(order["spec"], encoding="utf-8") as file:
                    fault = "" if json.load(file).get("key") == order["key"] else "it is of other work"
            except (OSError, ValueError) as error:
                fault = str(error)
            if not fault or time.monotonic() >= last:
                break
            time.sleep(0.5)  # a shared folder may show the last state of a file a little later
        if fault:
            return {"status": 1, "text": f"node {host} does not see {order['spec']} as it was written: {fault}"}
        process = None
        try:
            with open(order["log"], "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", order["module"], order["spec"], str(os.getpid())], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=order["folder"])
            # Asked again and again: a cancelled task is interrupted between two lines of Python.
            while process.poll() is None:
                time.sleep(0.2)
        except BaseException as error:
            if process is None:
                if isinstance(error, OSError):
                    return {"status": 1, "text": f"node {host} cannot start the job: {error}"}
                raise
            process.terminate()
            try:
                process.wait(order["stop"])
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        return {"status": process.returncode, "text": ""}

    return k3dn_job
