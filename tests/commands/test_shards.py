"""Stores made in shards by jobs: the content hash of one machine, resumed, with the faults of one machine."""
import contextlib

import miniatures
import numpy as np
import pytest

from k3dn_plugin.commands import _shards, main, prepare, simulate
from k3dn_plugin.comparison.backends.local import LocalBackend
from k3dn_plugin.comparison.worker import main as work
from k3dn_plugin.data import open_store
from k3dn_plugin.data.images import write_image

SIMULATED = ["--count", "5", "--size", "32", "40", "--max-radius", "3", "--seed", "4"]


class Here(LocalBackend):
    """Does each job in this process when it is asked after it, and counts them."""

    def __init__(self):
        super().__init__()
        self.started = 0

    def has_room(self, job):
        return True

    def submit(self, job):
        self.started += 1
        job.log_path.write_text("")
        work([str(job.write_spec())], {"shard": _shards.make_shard})
        return job.key

    def poll(self, handle):
        return 0

    def cancel(self, handles):
        pass


@pytest.fixture
def here(monkeypatch):
    """The back end that stands for a cluster; two scenes are a job."""
    backend = Here()
    monkeypatch.setattr(_shards, "SCENES", (2, 2))
    for module in (simulate, prepare):
        monkeypatch.setattr(module, "cluster_backend",
                            lambda address: contextlib.nullcontext(backend if address else None))
    return backend


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        write_image(folder / f"{number}.png", np.random.default_rng(number).integers(0, 255, (60, 70, 3), np.uint8))
    return folder


def test_simulated_shards_are_the_store_of_one_machine(here, photos, tmp_path):
    command = ["simulate", "--photos", str(photos), *SIMULATED, "--out"]
    assert main([*command, str(tmp_path / "one.lmdb")]) == 0 and here.started == 0
    assert main([*command, str(tmp_path / "many.lmdb"), "--cluster", "auto"]) == 0 and here.started == 3
    one, many = (open_store(tmp_path / f"{name}.lmdb") for name in ("one", "many"))
    assert one.hash == many.hash and one.names == many.names
    assert not (tmp_path / "many.lmdb.shards").exists() and (tmp_path / "many.png").exists()


def test_an_interrupted_build_takes_the_shards_that_are_there(here, photos, tmp_path, monkeypatch):
    command = ["simulate", "--photos", str(photos), *SIMULATED, "--out", str(tmp_path / "s.lmdb"), "--cluster", "auto"]
    kept, calls = simulate.make_shard, []

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kept(*arguments)
    monkeypatch.setattr(simulate, "make_shard", fails_once)
    assert main(command) == 130 and not (tmp_path / "s.lmdb").exists()
    assert main(command) == 0 and len(calls) == 4
    plain = [*command[:-3], str(tmp_path / "one.lmdb")]
    assert main(plain) == 0
    assert open_store(tmp_path / "s.lmdb").hash == open_store(tmp_path / "one.lmdb").hash


def test_prepared_shards_are_the_store_of_one_machine(here, tmp_path, capsys):
    miniatures.dpdd(tmp_path / "source" / "dd_dp_dataset_canon", portrait=(1,))
    command = ["prepare", "dpdd", "--source", str(tmp_path / "source"), "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    text = capsys.readouterr().out.replace(str(tmp_path / "one"), "OUT")
    assert main([*command, str(tmp_path / "many"), "--cluster", "auto"]) == 0 and here.started >= 3
    lines = [line for line in capsys.readouterr().out.replace(str(tmp_path / "many"), "OUT").splitlines()
             if not line.startswith(("start ", "done "))]
    assert lines == text.splitlines()
    for split in ("train", "val", "test"):
        one, many = (open_store(tmp_path / name / f"{split}.lmdb") for name in ("one", "many"))
        assert one.hash == many.hash
        assert one.manifest.as_json() == many.manifest.as_json(), "the sources' hashes and crops, too"
    assert not list((tmp_path / "many").glob("*.shards"))
    # As a command that was killed behind its first store leaves them.
    (tmp_path / "many" / "train.lmdb.shards" / "0000000").mkdir(parents=True)
    assert main([*command, str(tmp_path / "many"), "--cluster", "auto"]) == 0
    assert not list((tmp_path / "many").glob("*.shards"))


def test_faults_are_those_of_one_machine_and_go_away_when_they_are_corrected(here, tmp_path, capsys):
    miniatures.dpdd(tmp_path / "source" / "dd_dp_dataset_canon")
    broken = sorted((tmp_path / "source").rglob("train_l/source/*.png"))[0]
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    command = ["prepare", "dpdd", "--source", str(tmp_path / "source"), "--out"]
    assert main([*command, str(tmp_path / "one")]) == 2
    expected = capsys.readouterr().err.replace(str(tmp_path / "one"), "OUT")
    assert main([*command, str(tmp_path / "many"), "--cluster", "auto"]) == 2
    assert capsys.readouterr().err.replace(str(tmp_path / "many"), "OUT") == expected and broken.name in expected
    broken.write_bytes(content)
    for name, more in (("one", ()), ("many", ("--cluster", "auto"))):
        assert main([*command, str(tmp_path / name), *more]) == 0, capsys.readouterr().err
    assert open_store(tmp_path / "one" / "train.lmdb").hash == open_store(tmp_path / "many" / "train.lmdb").hash
