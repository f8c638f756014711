"""Comparisons on a real Ray cluster of two nodes on this machine: nodes killed, back ends changed, the same table."""
import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniatures
import numpy as np
import pytest
import yaml
from processes import kill_all
from ray_cluster import RayCluster

from k3dn_plugin.comparison.jobs import read_json
from k3dn_plugin.data import open_store
from k3dn_plugin.data.images import write_image
from k3dn_plugin.training.state import load_state

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "compare.py"
pytestmark = [pytest.mark.cluster, pytest.mark.slow,
              pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0",
               "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])}
SLOW = {"TINY_SLOW": "0.4"}   # seconds of a step, so that trainings can be met in the middle
# What is measured, and so differs from run to run.
MEASURED = {"latency", "latency range", "memory", "memory range", "training speed", "seconds"}


@pytest.fixture(scope="module")
def cluster():
    with RayCluster(**SLOW) as started:
        yield started


def recipe(folder, name, width):
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({
        "name": name, "num_threads": 1, "custom_imports": ["tiny_training_parts"],
        "network_g": {"type": "TinyRestorer", "width": width},
        "datasets": {"train": {"type": "TinyPairs", "length": 10, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}},
        "train": {"total_iter": 8, "optim_g": {"type": "Adam", "lr": 1e-2}, "losses": {"pixel": {"type": "L1Loss"}}},
        "val": {"save_img": 0},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1, "use_tb_logger": False}}))
    return path


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tiny_store):
    """`plan(out, *more)`: the command of one and the same comparison."""
    folder = tmp_path_factory.mktemp("recipes")
    entries = [str(recipe(folder, "narrow", 2)), str(recipe(folder, "wide", 5)), "center", "nothing=center"]

    def command(out, *more):
        return [sys.executable, str(TOOL), *entries, "--train", "--seeds", "1", "2", "--budget", "iterations=8",
                "--data", str(tiny_store), "--out", str(out), "--cpus-per-job", "1", "--size", "48", "48",
                "--latency-size", "32", "32", "--scenes", "1", *more]
    return command


def start(command, **variables):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, **ENVIRONMENT, **variables}, start_new_session=True)


def finish(process, seconds=1500):
    """What the process printed; its exit status is that of the process."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(process.communicate()[0]) from None


def until(condition, process, seconds=900):
    """Wait for something true, and return it."""
    last = time.monotonic() + seconds
    while not (found := condition()):
        if process.poll() is not None or time.monotonic() > last:
            raise AssertionError(f"ended or waited too long:\n{finish(process, 1)}")
        time.sleep(0.05)
    return found


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in MEASURED} for row in csv.DictReader(file)]


def at_work(out, node):
    """A training that runs on a node and has saved a state there."""
    for place in out.glob("runs/*/train.place.json"):
        try:
            found = json.loads(place.read_text())
        except (OSError, ValueError):
            continue
        if found["node"] == node and not (place.parent / "trained.json").exists() and list(
                place.parent.glob("run/states/*.state")):
            return place.parent
    return None


def second_node(address):
    """The identity of the node that is not the head, as places of jobs name it."""
    code = (f"import ray; ray.init(address={address!r}, log_to_driver=False, logging_level='error'); "
            "print(next(n['NodeID'][:8] for n in ray.nodes() if n['Alive'] "
            "and 'node:__internal_head__' not in n['Resources']))")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]


def test_a_node_dies_and_back_ends_change_and_the_table_is_the_local_one(cluster, plan, tmp_path):
    expected, out = tmp_path / "expected", tmp_path / "out"
    reference = start(plan(expected, "--jobs", "2"))
    assert finish(reference) and reference.returncode == 0

    # Begun on this machine, and killed.
    first = start(plan(out), **SLOW)
    until(lambda: list(out.glob("runs/*/run/states/*3.state")), first)
    os.kill(first.pid, signal.SIGKILL)
    finish(first)
    # Then on the cluster, of which a node dies in the middle; and ended by Ctrl-C.
    node = cluster.add()
    name = second_node(cluster.address)
    second = start(plan(out, "--cluster", cluster.address))
    lost = until(lambda: at_work(out, name), second)
    kill_all(node)
    until(lambda: (read_json(lost / "train.place.json") or {}).get("node") not in (None, name), second)
    until(lambda: list(out.glob("runs/*/trained.json")), second)
    os.kill(second.pid, signal.SIGINT)
    printed = finish(second)
    assert second.returncode == 130, printed
    assert "start   train narrow, seed 1 on " in printed and "iter:" in printed, printed
    assert " again, from what is saved" in printed, "the loss of a node is said"
    left = list(out.glob("runs/*/trained.json"))
    assert left and not (out / "report.html").exists()
    # Then here again, killed again; and finished on what is left of the cluster.
    third = start(plan(out), **SLOW)
    until(lambda: len(list(out.glob("runs/*/trained.json"))) > len(left) or list(out.glob("scores/*/per_image.csv")),
          third)
    os.kill(third.pid, signal.SIGKILL)
    finish(third)
    last = start(plan(out, "--cluster", cluster.address))
    printed = finish(last)
    assert last.returncode == 0, printed
    assert "were done before and are kept" in printed and "report:" in printed
    for name in ("results.csv", "table.csv"):
        assert rows(out / name) == rows(expected / name)
    assert "resuming from" in (lost / "train.log").read_text(), "what was lost went on from its state"
    assert len(rows(out / "results.csv")) == (2 * 2 + 2) * 6


def processes_of(folder):
    """Commands of all processes that name a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [command] if str(folder) in command else []
    return found


def test_a_killed_command_leaves_no_worker_behind(cluster, plan, tmp_path):
    out = tmp_path / "out"
    process = start(plan(out, "--cluster", cluster.address))
    until(lambda: list(out.glob("runs/*/run/states/*.state")), process)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    last = time.monotonic() + 120
    while left := processes_of(out):
        assert time.monotonic() < last, left
        time.sleep(0.2)
    states = list(out.glob("runs/*/run/states/*.state"))
    assert states and all(load_state(path) for path in states), "Ray kills workers while they save"


def test_what_a_node_does_not_see_is_one_error_before_anything_runs(cluster, plan, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    try:
        node = cluster.add(hidden=hidden)
    except AssertionError:
        pytest.skip("this machine allows no mounts of one's own")
    try:
        process = start(plan(hidden / "out", "--cluster", cluster.address))
        printed = finish(process)
    finally:
        kill_all(node)
    assert process.returncode == 2, printed
    assert "expected the folder of the comparison at the same path" in printed and "docs/guides/cluster.md" in printed
    assert not list((hidden / "out").glob("runs/*/run"))


def test_needs_that_no_node_has(cluster, plan, tmp_path):
    process = start(plan(tmp_path / "out", "--cluster", cluster.address, "--devices", "cuda"))
    printed = finish(process)
    assert process.returncode == 2 and "no node of the cluster has what a job needs (1 CPUs, 1 GPUs)" in printed


@pytest.mark.parametrize("name", ["simulate", "prepare"])
def test_a_store_made_by_a_cluster_killed_and_run_again_is_that_of_one_machine(cluster, tmp_path, name):
    source, out = tmp_path / "source", tmp_path / "many.lmdb"
    if name == "simulate":
        source.mkdir()
        write_image(source / "one.png", np.random.default_rng(0).integers(0, 255, (60, 70, 3), np.uint8))
        command = ["simulate.py", "--photos", str(source), "--count", "20", "--size", "32", "40", "--max-radius", "3"]
        stores, shards = [""], "many.lmdb.shards"
    else:
        miniatures.dpdd(source / "dd_dp_dataset_canon")
        command = ["prepare_data.py", "dpdd", "--source", str(source)]
        stores, shards = ["train.lmdb", "val.lmdb", "test.lmdb"], "many.lmdb/*.shards"
    command = [sys.executable, str(ROOT / "tools" / command[0]), *command[1:], "--out"]
    assert finish(one := start([*command, str(tmp_path / "one.lmdb")])) and one.returncode == 0
    command += [str(out), "--cluster", cluster.address]
    first = start(command)
    until(lambda: list(tmp_path.glob(f"{shards}/*/shard.place.json")), first)
    os.kill(first.pid, signal.SIGKILL)
    finish(first)
    process = start(command)
    printed = finish(process)
    assert process.returncode == 0 and "start   scenes " in printed, printed
    for store in stores:
        assert open_store(tmp_path / "one.lmdb" / store).hash == open_store(out / store).hash
    assert not list(tmp_path.glob(shards))


def test_the_head_dies_and_the_command_says_what_to_do(plan, tmp_path):
    out = tmp_path / "out"
    with RayCluster(**SLOW) as cluster:
        process = start(plan(out, "--cluster", cluster.address))
        until(lambda: list(out.glob("runs/*/run/states/*.state")), process)
        kill_all(cluster.nodes[0])
        printed = finish(process, 300)
    assert process.returncode == 2, printed
    assert "error: the head of the cluster" in printed and "run it without --cluster" in printed
    assert "Traceback" not in printed
