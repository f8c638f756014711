"""The bridge to Ray without Ray, and without a cluster."""
import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from k3dn_plugin.bridges.ray import RayBackend, _make_task
from k3dn_plugin.comparison.jobs import Job, Needs, Shared
from k3dn_plugin.comparison.probe import differences, look, question
from k3dn_plugin.errors import DependencyError, OptionError, TrainingError

ROOT = Path(__file__).resolve().parents[2]


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"extra \[cluster\]"):
        RayBackend("auto")


def test_only_the_bridge_knows_ray():
    found = [path for path in (ROOT / "k3dn_plugin").rglob("*.py")
             if any(line.strip().startswith(("import ray", "from ray")) for line in path.read_text().splitlines())]
    assert found == [ROOT / "k3dn_plugin" / "bridges" / "ray.py"]


@pytest.mark.cluster
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_no_cluster_and_no_client():
    with pytest.raises(OptionError, match="ray start --head"):
        RayBackend("127.0.0.1:1")
    with pytest.raises(OptionError, match="on a node of the cluster"):
        RayBackend("ray://127.0.0.1:10001")


@pytest.fixture
def shared(tmp_path, tiny_store):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    return Shared(tmp_path / "out", [{"type": "DualPixelDataset", "store": str(tiny_store)}], ["json"], [str(weights)])


def test_a_machine_that_sees_all_lacks_nothing(shared):
    asked = question(shared)
    assert differences(asked, look(asked), {**look(asked), "host": "another"}) == []


def test_what_a_machine_lacks_is_said(shared):
    asked = question(shared)
    here = look(asked)
    there = look({**asked, "probe": str(shared.out / "elsewhere" / ".probe"), "imports": ["no_such_module"],
                  "datasets": [{"type": "DualPixelDataset", "store": "/none.lmdb"}], "weights": ["/none.pth"]})
    there["versions"] = {**there["versions"], "torch": "0.1"}
    there["package"] = "other"
    text = "\n".join(differences(asked, here, there))
    for part in ("expected the folder of the comparison at the same path", "expected the data",
                 "expected weights", "expected imports json", "expected torch", "another one of the same version"):
        assert part in text, part
    (shared.out / ".probe").write_text("0" * len(asked["token"]))
    assert "another folder" in differences(asked, here, look(asked))[0]


@pytest.mark.slow
def test_a_node_that_joins_late_is_asked_before_its_first_job(shared, tmp_path, monkeypatch):
    """The task itself, in this process, on a node that was not there when the comparison began."""
    context = SimpleNamespace(get_node_id=lambda: "late0000")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    backend = object.__new__(RayBackend)
    backend._asked, backend._probed = question(shared), []
    backend._seen = look(backend._asked)
    job = Job("train", "train x", {}, {"recipe": str(tmp_path / "missing.yml"), "device": "cpu"}, tmp_path,
              tmp_path / "done.json")
    job.write_spec()
    # It lacks nothing, and has a package that the others do without.
    packages = dict(backend._seen["versions"])
    backend._seen = {**backend._seen, "versions": {name: packages[name] for name in ("k3dn_plugin", "torch")}}
    answer = _make_task()(backend._order(job, Needs()))
    assert answer["status"] == 2 and "missing.yml" in job.log_path.read_text()
    assert job.place()["node"] == "late0000"
    job.place_path.unlink()
    backend._seen = {**backend._seen, "versions": {**backend._seen["versions"], "torch": "0.1"}}
    answer = _make_task()(backend._order(job, Needs()))
    assert any("expected torch 0.1" in one for one in backend._lacking(answer)) and job.place() is None
    (shared.out / ".probe").unlink()
    answer = _make_task()({**backend._order(job, Needs()), "folder": str(tmp_path / "elsewhere")})
    assert "expected the working folder" in backend._lacking(answer)[0]


class RayError(Exception):
    """Stands for Ray's."""


@pytest.fixture
def backend():
    """A back end whose tasks end as `backend.ends` says: an error of Ray, or a task's answer."""
    def get(handle):
        if isinstance(made.ends, Exception):
            raise made.ends
        return made.ends

    made = object.__new__(RayBackend)
    made._ray = SimpleNamespace(wait=lambda handles, timeout: (handles, []), get=get,
                                exceptions=SimpleNamespace(RayError=RayError))
    made._task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda order: order["spec"]))
    made._asked, made._seen, made._probed = None, None, ["here"]
    made._connected, made._logs, made._unwritten = False, {}, {}
    made._head, made._head_lost, made._head_asked, made._head_answered = "127.0.0.1:1", False, time.monotonic(), 0
    return made


@pytest.fixture
def job(tmp_path):
    return Job("train", "train x", {}, {}, tmp_path / "x", tmp_path / "x" / "done.json")


@pytest.mark.parametrize("ends, said", [(RayError("A task was killed:\nnode memory ran out"), "node memory ran out"),
                                        ({"status": 1, "text": "node n does not see it"}, "node n does not see it")])
def test_what_ray_says_of_a_lost_task_is_in_the_log(backend, job, ends, said):
    backend.ends = ends
    assert backend.poll(backend.submit(job)) == 1
    assert backend.log(job).splitlines() == [f"error: {said}"]
    handle = backend.submit(job)
    shutil.rmtree(job.folder)
    assert backend.poll(handle) == 1 and said in backend.log(job)


def test_a_task_waits_for_what_a_shared_folder_shows_later(backend, job, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here")))
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            job.write_spec()
    monkeypatch.setattr("time.sleep", sleep)
    job.write_spec()
    order = {**backend._order(job, Needs()), "module": "this"}  # which prints a poem
    job.spec_path.write_text(json.dumps({"key": "that of an earlier call"}))
    assert _make_task()(order) == {"status": 0, "text": ""} and len(waits) >= 3
    job.spec_path.unlink()
    assert "does not see" in _make_task()({**order, "settle": 0})["text"]
    job.write_spec()
    answer = _make_task()({**order, "log": str(job.folder / "none" / "x.log")})
    assert answer["status"] == 1 and "cannot start the job" in answer["text"]


def test_a_head_that_is_gone_is_said(backend, job):
    handle = backend.submit(job)
    backend._head_asked = 0
    with pytest.raises(TrainingError, match=r"head of the cluster, 127\.0\.0\.1:1, .*run it without --cluster"):
        backend.poll(handle)
    backend.cancel([handle])
    backend.close()


def test_a_head_that_is_busy_for_a_moment_is_none_that_is_gone(backend, job):
    backend.ends = {"status": 0, "text": ""}
    backend._head_asked, backend._head_answered = 0, time.monotonic() - 1
    assert backend.poll(backend.submit(job)) == 0
