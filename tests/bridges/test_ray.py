"""The bridge to Ray without Ray, and without a cluster."""
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from k3dn_plugin.bridges.ray import RayBackend, _make_task
from k3dn_plugin.comparison.jobs import Job, Needs, Shared
from k3dn_plugin.comparison.probe import differences, look, question
from k3dn_plugin.errors import DependencyError, OptionError

ROOT = Path(__file__).resolve().parents[2]


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"k3dn_plugin\[cluster\]"):
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
