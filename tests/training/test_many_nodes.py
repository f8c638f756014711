"""Training on two nodes, which are two torchrun agents of this machine; SLURM's script of the guide; other numbers of
processes on resume.
"""
import csv
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import free_port, kill_all
from training_questions import PLAIN

from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.zoo.weights import read_weights

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "train.py"
SHARED = {"train": {"global_batch": 4}, "datasets": {"val": None}}
# The second variable is what the guide says about nodes that come back.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
               "PYTHONPATH": str(ROOT / "tests" / "helpers")}


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def agent(folder, port, path, **variables):
    """One node: a torchrun agent with one process, that waits for a second node."""
    log = open(folder / f"agent_{time.monotonic_ns()}.log", "w+")
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "tiny",
               "--rdzv-conf", "join_timeout=600,keep_alive_interval=1,keep_alive_max_attempt=3", "--max-restarts", "5",
               "--monitor-interval", "0.2", str(TOOL), "-opt", str(path), "--launcher", "pytorch", "--resume", "auto",
               "--device", "cpu"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                               env={**ENVIRONMENT, **variables})
    process.log = log.name
    return process


def finish(*agents, seconds=600):
    try:
        for one in agents:
            one.wait(seconds)
    finally:
        for one in agents:
            kill_all(one)
    texts = [Path(one.log).read_text() for one in agents]
    assert [one.returncode for one in agents] == [0] * len(agents), "\n".join(texts)
    return texts


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "stage" and v} for row in csv.DictReader(file)]


def assert_near(folder, result):
    """The losses of each iteration and the last weights are those of another run but for rounding."""
    for one, other in zip(rows(folder), rows(result.folder), strict=True):
        assert one == pytest.approx(other, abs=2e-6)
    expected = read_weights(result.last_weights).state
    for key, value in read_weights(folder / "models" / "last.safetensors").state.items():
        assert value.double().numpy() == pytest.approx(expected[key].double().numpy(), abs=2e-6)


def order(path):
    """The samples of each iteration of a run with a global batch of four, whichever process read them."""
    read = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return sorted((epoch, index) for _, epoch, index in read)


@pytest.mark.slow
def test_two_nodes_equal_one_process_and_a_lost_node_comes_back(recipe, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_READS", str(tmp_path / "one.txt"))
    one = trained(PLAIN, SHARED, {"name": "one"})
    monkeypatch.delenv("TINY_READS")
    path = recipe(PLAIN, SHARED, {"name": "two", "logger": {"save_checkpoint_freq": 1}})
    folder = tmp_path / "experiments" / "two"
    port, slow = free_port(), {"TINY_SLOW": "0.5"}
    first = agent(tmp_path, port, path, **slow)
    last = time.monotonic() + 600
    while not listens(port):  # the first one is where the nodes meet
        assert first.poll() is None and time.monotonic() < last, Path(first.log).read_text()
        time.sleep(0.1)
    lost = agent(tmp_path, port, path, **slow)
    while not [state for state in state_files(folder / "states") if int(state.stem) >= 2]:
        assert first.poll() is None and time.monotonic() < last, Path(first.log).read_text()
        time.sleep(0.05)
    kill_all(lost)
    reached = int(state_files(folder / "states")[0].stem)
    assert reached < 8
    again = agent(tmp_path, port, path, TINY_READS=str(tmp_path / "again.txt"))
    texts = finish(first, again)
    assert "resuming from" in (folder / "train.log").read_text() and "2 processes" in "".join(texts)
    assert_near(folder, one)
    # The node that came back read its share of what was left, and nothing of what had been trained on.
    whole = [tuple(map(int, line.split()))[1:] for line in (tmp_path / "one.txt").read_text().splitlines()]
    assert set(order(tmp_path / "again.txt")) <= set(whole[4 * reached:])


def test_another_number_of_processes_goes_on_in_the_same_order(recipe, child, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_READS", str(tmp_path / "one.txt"))
    one = trained(PLAIN, SHARED, {"name": "one"})
    path, folder = recipe(PLAIN, SHARED, {"name": "other"}, file="other.yml"), tmp_path / "experiments" / "other"
    reads = {"TINY_READS": tmp_path / "other.txt"}
    # Two micro-batches an iteration: the seventh forward pass is the first of the fourth iteration.
    code, output = child("-opt", path, TINY_SIGNAL="15:7", **reads).wait()
    assert code == 143, output
    assert load_state(state_files(folder / "states")[0])["world_size"] == 1
    port = free_port()
    processes = [child("-opt", path, "--launcher", "pytorch", "--resume", "auto", RANK=rank, LOCAL_RANK=rank,
                       WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **reads) for rank in range(2)]
    outputs = [process.wait() for process in processes]
    assert [code for code, _ in outputs] == [0, 0], outputs
    assert "saved by 1 process(es), going on with 2" in outputs[0][1] and "Not bit-identical" in outputs[0][1]
    assert_near(folder, one)
    assert order(tmp_path / "other.txt") == order(tmp_path / "one.txt")
    assert load_state(state_files(folder / "states")[0])["world_size"] == 2


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
pids=()
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_NTASKS=2 SLURM_LOCALID=$rank SLURM_NODELIST=nodes "$@" & pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || { now=$?; ((now > status)) && status=$now; }; done
exit $status
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> "$REQUEUED"; fi
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_slurm_saves_requeues_and_goes_on(recipe, trained, tmp_path):
    """The very script of the guide, with an `srun` that starts two processes here."""
    page = (ROOT / "docs" / "guides" / "cluster.md").read_text(encoding="utf-8")
    script = re.search(r"```bash\n(#!/bin/bash.*?)```", page, re.S)[1]
    assert "#SBATCH --signal=USR1@" in script
    one = trained(PLAIN, SHARED, {"name": "one"})
    path, folder = recipe(PLAIN, SHARED, {"name": "slurm"}), tmp_path / "experiments" / "slurm"
    programs = {"srun": SRUN, "scontrol": SCONTROL, "k3dn": f'#!/bin/bash\nshift\nexec {sys.executable} {TOOL} "$@"\n'}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod((tmp_path / name).stat().st_mode | stat.S_IXUSR)
    script = script.replace("-opt k3dn_dpdd", f"-opt {path} --device cpu")
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": str(os.getpid()),
                   "REQUEUED": str(tmp_path / "requeued.txt")}

    def run(**variables):
        return subprocess.run(["bash", "-c", script], env={**environment, **variables}, capture_output=True, text=True,
                              timeout=600)
    # The first forward pass looks for parameters without a gradient: the fifth is that of the fourth iteration.
    first = run(TINY_SIGNAL=f"{int(signal.SIGUSR1)}:5")
    assert first.returncode == 128 + signal.SIGUSR1, first.stdout + first.stderr
    assert (tmp_path / "requeued.txt").read_text() == f"requeue {os.getpid()}\n"
    assert [int(state.stem) for state in state_files(folder / "states")][0] == 4
    second = run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert "resuming from" in second.stdout
    assert (tmp_path / "requeued.txt").read_text().count("requeue") == 1
    assert_near(folder, one)
