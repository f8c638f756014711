"""Scoring shared by two gloo processes: no image twice, one result, the numbers of one, resumed by any number."""
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import alive, free_port

from k3dn_plugin.evaluation.results import RowFile

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "test.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests" / "helpers")}
RECIPE = """
name: shared
custom_imports: [tiny_training_parts]
network_g: {type: TinyRestorer}
datasets: {val: {type: TinyPairs, length: 7, size: 24}}
val: {protocol: full_float}
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """`command(out, *more)`: scores the center view of seven tiny pairs."""
    path = tmp_path_factory.mktemp("recipe") / "shared.yml"
    path.write_text(RECIPE)

    def make(out, *more):
        return [str(TOOL), "-opt", str(path), "--weights", "center", "--out", str(out), "--save-pictures", "3",
                "--device", "cpu", *more]
    return make


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    """The folder of one process's result."""
    out = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, *command(out)], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return out


def rows(folder):
    with open(folder / "per_image.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key not in ("seconds", "check")}
                for row in csv.DictReader(file)]


def same(folder, other):
    assert rows(folder) == rows(other)
    means = [json.loads((one / "summary.json").read_text())["means"] for one in (folder, other)]
    assert means[0] == means[1]
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "per_image.csv", "per_image.identity.json", "pictures", "summary.json"]
    assert len(list((folder / "pictures").iterdir())) == 3


def test_torchrun_gives_the_numbers_of_one_process(command, alone, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()),
         *command(tmp_path, "--launcher", "pytorch")], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shared by 2 processes") == 1
    same(tmp_path, alone)


def test_devices_share_what_a_killed_process_has_left(command, alone, tmp_path):
    identity = json.loads((alone / "per_image.identity.json").read_text())
    stored = RowFile(alone / "per_image.csv", identity).rows()
    assert len(stored) == 7
    # As three killed processes would have left it: two files with rows, one of them cut short.
    RowFile(tmp_path / "per_image.1of3.csv", identity).start([stored[0], stored[3]])
    RowFile(tmp_path / "per_image.2of3.csv", identity).start([stored[4]])
    with open(tmp_path / "per_image.2of3.csv", "a") as file:
        file.write("5,tiny_05,")
    done = subprocess.run([sys.executable, *command(tmp_path, "--devices", "cpu", "cpu")], env=ENVIRONMENT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The pictures of images 0 and 3 are missing, so these are restored again; their rows stay.
    assert "1 of 7 images had been scored before" in done.stdout
    same(tmp_path, alone)
    again = subprocess.run([sys.executable, *command(tmp_path, "--devices", "cpu", "cpu")], env=ENVIRONMENT,
                           capture_output=True, text=True)
    assert "7 of 7 images had been scored before" in again.stdout, again.stderr
    same(tmp_path, alone)


def started(process):
    """The two processes that a command has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    last, found = time.monotonic() + 600, []
    while len(found) < 2 and time.monotonic() < last:
        found = [pid for pid in map(int, children.read_text().split())
                 if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        time.sleep(0.02)
    return found


def test_a_killed_process_ends_the_others_and_a_single_one_goes_on(command, alone, tmp_path):
    process = subprocess.Popen([sys.executable, *command(tmp_path, "--devices", "cpu", "cpu")], env=ENVIRONMENT,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    victims = started(process)
    os.kill(victims[1], signal.SIGKILL)
    process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGKILL
    assert not any(Path(f"/proc/{pid}").exists() for pid in victims)
    done = subprocess.run([sys.executable, *command(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same(tmp_path, alone)


def test_a_killed_command_leaves_no_process_behind(command, tmp_path):
    process = subprocess.Popen([sys.executable, *command(tmp_path, "--devices", "cpu", "cpu")], env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    victims = started(process)
    process.kill()
    process.wait()
    last = time.monotonic() + 60
    while any(alive(pid) for pid in victims) and time.monotonic() < last:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in victims)


def test_an_error_is_said_once_and_ends_both(command, tmp_path):
    done = subprocess.run([sys.executable, *command(tmp_path, "--devices", "cpu", "gpu")], env=ENVIRONMENT,
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("found 'gpu'") == 1
    both = subprocess.run([sys.executable, *command(tmp_path, "--devices", "cpu", "--launcher", "pytorch")],
                          env=ENVIRONMENT, capture_output=True, text=True)
    assert both.returncode == 2 and "give one of the two" in both.stderr
