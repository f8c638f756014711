"""Exact resume: killed anywhere and resumed, a run ends with the bits of an unbroken one."""
import random
import shutil
import time

import pytest
from training_questions import STAGES, assert_equal

from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.zoo.weights import read_weights

KILLED = -9


def final(experiments):
    """What must be the same: the last state (without its clock and paths), weights files, metrics.csv."""
    folder = experiments / "tiny"
    state = load_state(state_files(folder / "states")[0])
    for key in ("seconds", "options", "options_hash"):
        del state[key]
    weights = {p.name: read_weights(p).state for p in sorted((folder / "models").glob("*.safetensors"))}
    return {"state": state, "weights": weights, "metrics": (folder / "metrics.csv").read_text()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The end of an undisturbed run of the two-stage recipe, trained once."""
    kept = {}

    def get(train):
        if not kept:
            kept.update(final(train()))
        return kept
    return get


@pytest.fixture
def expected(unbroken, trained, tmp_path):
    def run():
        trained(STAGES)
        moved = tmp_path / "unbroken"
        shutil.move(tmp_path / "experiments", moved)
        return moved
    return unbroken(run)


@pytest.mark.parametrize("where", [
    "forward:1",            # before anything is saved
    "forward:4",            # in the first stage, one iteration after a state
    "forward:6",            # between the stages: saved at the end of the first, none yet in the second
    "forward:10",           # in the second stage
    "write:.state:1",       # half through writing the first state
    "write:.state:3",       # half through that at the end of the first stage
    "write:last:2",         # half through the weights, whose state comes after them
    "write:best:2",         # the weights of a validation
    "replace:.state:3",     # just after the state at the end of the first stage got its name
    "replace:.state:6",     # just after the very last one did
    "replace:metrics:2",    # just after metrics.csv got a column
])
def test_killed_and_resumed(where, expected, recipe, child, trained, tmp_path):
    path = recipe(STAGES)
    code, output = child("-opt", path, TINY_KILL=where).wait()
    assert code == KILLED, output
    result = trained(STAGES, resume="auto")
    assert result.finished and result.iterations == 10 and result.samples_seen == 20
    assert_equal(final(tmp_path / "experiments"), expected)
    assert not list((tmp_path / "experiments").rglob("*.part"))


HALF = {"network_g": {"volume": True}, "train": {"amp": "bfloat16", "channels_last": True}}


def test_bfloat16_resumes_with_the_same_bits(recipe, child, trained, tmp_path):
    """With a Conv3d, whose weight gradient in bfloat16 oneDNN computes from memory that nobody wrote."""
    trained(HALF)
    expected = final(tmp_path / "experiments")
    shutil.rmtree(tmp_path / "experiments")
    trained(HALF)
    assert_equal(final(tmp_path / "experiments"), expected)
    shutil.rmtree(tmp_path / "experiments")
    code, output = child("-opt", recipe(HALF), TINY_KILL="forward:6").wait()
    assert code == KILLED, output
    trained(HALF, resume="auto")
    assert_equal(final(tmp_path / "experiments"), expected)


def test_killed_again_and_again(expected, recipe, child, tmp_path):
    path, draw = recipe(STAGES), random.Random(3)
    for attempt in range(50):
        running = child("-opt", path, "--resume", "auto", TINY_SLOW=0.1)
        while "stage" not in running.output() and running.process.is_alive():
            time.sleep(0.01)
        # A little longer each time, so that a slow machine gets somewhere in the end.
        running.process.join(draw.uniform(0.0, 0.5 + 0.1 * attempt))
        if running.process.exitcode == 0:
            break
        assert running.process.exitcode is None, running.output()
        running.process.kill()
        running.process.join()
    else:
        pytest.fail("never finished")
    assert_equal(final(tmp_path / "experiments"), expected)


def reads(path, seed=3):
    """`(epoch, index)` of the training samples (those of `seed`) that were read, in order."""
    rows = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return [row[1:] for row in rows if row[0] == seed]


def test_workers_read_nothing_twice(expected, recipe, child, tmp_path, trained, monkeypatch):
    monkeypatch.setenv("TINY_READS", str(tmp_path / "all.txt"))
    trained()
    shutil.rmtree(tmp_path / "experiments")
    monkeypatch.delenv("TINY_READS")
    workers = {"datasets": {"train": {"num_worker_per_gpu": 2}}}
    path = recipe(workers)
    code, output = child("-opt", path, TINY_KILL="forward:6", TINY_READS=tmp_path / "first.txt").wait()
    assert code == KILLED, output
    resumed = child("-opt", path, "--resume", "auto", TINY_READS=tmp_path / "second.txt")
    assert resumed.wait()[0] == 0, resumed.output()
    everything = reads(tmp_path / "all.txt")
    # Saved after 4 iterations of 2 samples; the workers may read in either order.
    assert len(everything) == 16 and sorted(reads(tmp_path / "second.txt")) == sorted(everything[8:])


def test_workers_do_not_change_the_result(recipe, child, trained, tmp_path):
    trained({"datasets": {"train": {"num_worker_per_gpu": 2}}})
    with_workers = final(tmp_path / "experiments")
    shutil.rmtree(tmp_path / "experiments")
    trained()
    assert_equal(with_workers, final(tmp_path / "experiments"))
