"""Two gloo processes on the CPU train as one process with the doubled batch."""
import csv

import pytest
from processes import free_port
from training_questions import PLAIN, assert_equal

from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.zoo.weights import read_weights


def start_two(child, path, *arguments, **variables):
    """Two processes with the environment that torchrun would give them."""
    port = free_port()
    return [child("-opt", path, "--launcher", "pytorch", *arguments, RANK=rank, LOCAL_RANK=rank,
                  WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **variables)
            for rank in range(2)]


def finish(processes, code=0):
    outputs = []
    for process in processes:
        found, output = process.wait()
        assert found == code, "\n".join(p.output() for p in processes)
        outputs.append(output)
    return outputs


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "stage" and v} for row in csv.DictReader(file)]


def test_two_processes_equal_one_with_the_doubled_batch(recipe, child, trained, tmp_path):
    # Five images for two processes: the shares differ in size.
    held_out = {"datasets": {"val": {"length": 5}}}
    one = trained(PLAIN, held_out, {"name": "one", "datasets": {"train": {"batch_size_per_gpu": 4}}})
    path = recipe(PLAIN, held_out, {"name": "two"})
    outputs = finish(start_two(child, path, TINY_READS=tmp_path / "reads.txt"))
    assert "2 processes" in outputs[0] and "INFO" not in outputs[1]
    two = tmp_path / "experiments" / "two"
    for first, second in zip(rows(one.folder), rows(two), strict=True):
        assert first == pytest.approx(second, abs=2e-6)
    expected = read_weights(one.last_weights).state
    for key, value in read_weights(two / "models" / "last.safetensors").state.items():
        assert value.double().numpy() == pytest.approx(expected[key].double().numpy(), abs=2e-6)
    read = [line.split() for line in (tmp_path / "reads.txt").read_text().splitlines()]
    scored = sorted(int(index) for seed, _, index in read if seed == "9")
    assert scored == sorted(list(range(5)) * 3)   # three validations, each image once
    seen = [(epoch, index) for seed, epoch, index in read if seed == "3"]
    assert len(seen) == 32 == len(set(seen)) == one.samples_seen


def test_a_resumed_run_of_two_processes_has_the_same_bits(recipe, child, tmp_path):
    """With dropout and batch norm, so that every process's generator matters."""
    def last(name):
        state = load_state(state_files(tmp_path / "experiments" / name / "states")[0])
        for key in ("seconds", "options", "options_hash"):
            del state[key]
        return state

    finish(start_two(child, recipe({"name": "unbroken"}, file="unbroken.yml")))
    path = recipe({"name": "broken"}, file="broken.yml")
    # The first forward pass only looks for parameters without a gradient.
    stopped = start_two(child, path, TINY_SIGNAL="15:6")
    outputs = finish(stopped, 143)
    assert "--resume auto --launcher pytorch" in outputs[0]
    assert last("broken")["iteration"] == 5
    finish(start_two(child, path, "--resume", "auto"))
    assert_equal(last("broken"), last("unbroken"))


def test_an_error_of_the_first_process_ends_both(recipe, child, trained):
    trained()
    outputs = finish(start_two(child, recipe()), 2)
    assert all("already holds a run" in output for output in outputs)


def test_another_number_of_processes_is_refused(recipe, child, trained):
    trained()
    outputs = finish(start_two(child, recipe(), "--resume", "auto"), 2)
    assert "saved by 1 processes, this run has 2" in outputs[0]


def test_a_global_batch_is_the_same_run_on_two_processes(recipe, child, trained, tmp_path):
    """Two phases: one process accumulates what two share."""
    phases = {"train": {"phases": [{"iterations": 3, "global_batch": 4}, {"iterations": 5, "global_batch": 2}]}}
    one = trained(PLAIN, phases, {"name": "one"})
    finish(start_two(child, recipe(PLAIN, phases, {"name": "two"})))
    for first, second in zip(rows(one.folder), rows(tmp_path / "experiments" / "two"), strict=True):
        assert first == pytest.approx(second, abs=2e-6)
    odd = recipe(PLAIN, {"name": "odd", "train": {"global_batch": 3}})
    outputs = finish(start_two(child, odd), 2)
    assert "a global batch of 3 cannot be shared evenly by 2 devices" in outputs[0]
    assert not (tmp_path / "experiments" / "odd").exists()


@pytest.mark.parametrize("losses, expected", [
    ({"pixel": {"type": "L1Loss"}}, False), ({"pixel": {"type": "L1Loss", "predicted": "half"}}, True)])
def test_unused_parameters_are_looked_for_only_where_there_are_some(losses, expected, recipe, child):
    path = recipe(PLAIN, {"name": "unused", "datasets": {"val": None}, "network_g": {"refine": True},
                          "train": {"total_iter": 2, "losses": {"_delete_": True, **losses}}})
    outputs = finish(start_two(child, path, TINY_TELL_DDP=1))
    assert f"find_unused_parameters={expected}" in outputs[0] and f"find_unused_parameters={expected}" in outputs[1]


def test_one_collective_a_step(recipe, child):
    path = recipe(PLAIN, {"name": "calls", "datasets": {"val": None}, "train": {"total_iter": 6, "accumulate": 2},
                          "logger": {"save_checkpoint_freq": 6}})
    outputs = finish(start_two(child, path, TINY_TELL_DDP=1))
    assert "collectives of the loop: 6 in 6 iterations" in outputs[0]
