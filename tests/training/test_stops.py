"""Signals, bad losses, no memory, no space: training ends with advice, and nothing saved is lost."""
import pytest
import torch
from training_questions import assert_equal

from k3dn_plugin.console import command_line
from k3dn_plugin.errors import StorageError, TrainingError
from k3dn_plugin.training.state import load_state, state_files


def newest(tmp_path):
    state = load_state(state_files(tmp_path / "experiments" / "tiny" / "states")[0])
    del state["seconds"]
    return state


@pytest.mark.parametrize("number, name, code", [(2, "SIGINT", 130), (15, "SIGTERM", 143)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_and_says_how_to_go_on(number, name, code, workers, recipe, child, trained, tmp_path):
    path = recipe({"datasets": {"train": {"num_worker_per_gpu": workers}}})
    found, output = child("-opt", path, TINY_SIGNAL=f"{number}:5").wait()
    assert found == code, output
    assert f"{name} received" in output and "Traceback" not in output
    assert f"{command_line('train')} -opt {path} --resume auto" in output
    assert newest(tmp_path)["iteration"] == 5
    trained(resume="auto")
    resumed = newest(tmp_path)
    trained(overwrite=True)
    assert_equal(resumed, newest(tmp_path))


def test_a_second_interrupt_stops_at_once():
    from k3dn_plugin.training.stopping import StopRequest
    said = []
    with StopRequest(said.append) as stop:
        import os
        os.kill(os.getpid(), 2)
        assert stop.signal == 2 and "finishing this iteration" in said[0]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), 2)
    with StopRequest(said.append, patient=True) as stop:
        os.kill(os.getpid(), 2)
        os.kill(os.getpid(), 15)
        assert stop.signal == 2


@pytest.mark.parametrize("amp", [None, "bfloat16"])
def test_a_loss_that_is_not_finite(amp, trained, tmp_path):
    with pytest.raises(TrainingError) as error:
        trained({"network_g": {"explode_after": 5}, "train": {"amp": amp}})
    text = str(error.value)
    assert "not finite at iteration 6: fft = nan, pixel = nan on the samples tiny_" in text
    assert "00000004.state" in text and "train.optim_g.lr" in text and "train.grad_clip" in text
    assert ("train.amp" in text) == (amp is not None)
    assert newest(tmp_path)["iteration"] == 4


def test_weights_that_are_not_finite_are_not_saved(trained, tmp_path):
    # The loss is 0, its gradient NaN: iteration 3 spoils the weights, iteration 4 would notice.
    with pytest.raises(TrainingError, match="after iteration 1 the weight restorer.first.weight is not "
                                            "finite.*No state had been saved"):
        trained({"train": {"losses": {"root": {"type": "RootLoss"}}},
                 "logger": {"save_checkpoint_freq": 1}, "val": {"val_freq": 100}})
    assert state_files(tmp_path / "experiments" / "tiny" / "states") == []


@pytest.mark.parametrize("failure", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                 "you tried to allocate 1 bytes. Error code 12")])
def test_no_memory_ends_with_advice(failure, trained, monkeypatch):
    import tiny_training_parts

    def fail(self, views):
        raise failure
    monkeypatch.setattr(tiny_training_parts.TinyRestorer, "restore", fail)
    with pytest.raises(TrainingError) as error:
        trained()
    for word in ("memory ran out", "batch_size_per_gpu", "accumulate", "crop_size", "amp"):
        assert word in str(error.value)


def test_other_runtime_errors_pass_through(trained, monkeypatch):
    import tiny_training_parts

    def fail(self, views):
        raise RuntimeError("a bug")
    monkeypatch.setattr(tiny_training_parts.TinyRestorer, "restore", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        trained()


@pytest.mark.parametrize("which", [".state:3", "best:2", "options:1"])
def test_a_full_disk_leaves_what_was_saved(which, recipe, child, trained, tmp_path):
    code, output = child("-opt", recipe(), TINY_FULL_DISK=which).wait()
    assert code == 2 and "Traceback" not in output, output
    assert "error: could not write" in output and "No space left on device" in output
    assert not list((tmp_path / "experiments").rglob("*.part"))
    trained(resume="auto")
    resumed = newest(tmp_path)
    trained(overwrite=True)
    assert_equal(resumed, newest(tmp_path))


def test_a_full_disk_under_metrics(trained, tmp_path, monkeypatch):
    from k3dn_plugin.training.hooks import RecordHook

    def full(self, trainer):
        raise OSError(28, "No space left on device", str(trainer.experiment.metrics))
    monkeypatch.setattr(RecordHook, "after_iteration", full)
    with pytest.raises(StorageError, match="metrics.csv: No space left"):
        trained()


def test_an_error_in_a_worker_comes_without_its_traceback(trained, monkeypatch):
    import tiny_training_parts

    from k3dn_plugin.errors import DataError

    def fail(self, index):
        raise DataError("frame 3 of x.lmdb is cut short: expected 10 bytes, found 5")
    monkeypatch.setattr(tiny_training_parts.TinyPairs, "__getitem__", fail)
    with pytest.raises(DataError) as error:
        trained({"datasets": {"train": {"num_worker_per_gpu": 1}, "val": None}})
    assert str(error.value) == "frame 3 of x.lmdb is cut short: expected 10 bytes, found 5"
