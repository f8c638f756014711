"""States and folders: what is damaged, foreign, changed or in the way, and what is said about it."""
import shutil
import zipfile

import pytest
import torch
from training_questions import assert_equal

from k3dn_plugin.errors import CheckpointError, OptionError
from k3dn_plugin.training.state import load_state, newest_state, save_state, state_files


@pytest.fixture
def run(trained):
    """A finished run: its folder, its states (newest first), and how to go on with it."""
    result = trained()
    states = state_files(result.folder / "states")
    return result, states, lambda *changes, **arguments: trained(*changes, **arguments)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[:len(data) // 2]
    elif how == "empty":
        data = data[:0]
    else:  # one bit, within a tensor's record
        with zipfile.ZipFile(path) as archive:
            record = max(archive.infolist(), key=lambda i: i.file_size)
        data[record.header_offset + 200] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["cut", "empty", "bit"])
def test_a_damaged_newest_state_falls_back_to_the_one_before(run, how, capsys):
    result, states, go_on = run
    expected = load_state(states[0])
    damage(states[0], how)
    warnings = []
    path, state = newest_state(result.folder / "states", warnings.append)
    assert path == states[1] and state["iteration"] == 6
    assert len(warnings) == 1 and states[0].name in warnings[0] and "damaged" in warnings[0]
    go_on(resume="auto")
    again = load_state(states[0])
    for one in (again, expected):
        del one["seconds"]
    assert_equal(again, expected)


def test_all_states_damaged(run):
    result, states, go_on = run
    for path in states:
        damage(path, "cut")
    with pytest.raises(CheckpointError, match="all 2 training states in .* are damaged.*--overwrite"):
        go_on(resume="auto")


def test_a_damaged_state_that_was_asked_for_is_an_error(run):
    _, states, go_on = run
    damage(states[0], "cut")
    with pytest.raises(CheckpointError, match="00000008.state is damaged"):
        go_on(resume=str(states[0]))


def test_a_state_that_is_not_there_or_not_a_state(run, tmp_path):
    result, states, go_on = run
    with pytest.raises(CheckpointError, match="no training state at .*holds 00000008.state, 00000006.state"):
        go_on(resume=str(states[0].with_name("00000005.state")))
    with pytest.raises(CheckpointError, match="no training state lies in"):
        go_on(resume=str(tmp_path))
    other = tmp_path / "other.pth"
    torch.save({"params": {}}, other)
    with pytest.raises(CheckpointError, match="is not a training state of k3dn_plugin"):
        load_state(other)


def test_a_finished_run_is_not_trained_again(run):
    result, states, go_on = run
    before = states[0].stat().st_mtime_ns
    again = go_on(resume="auto")
    assert again.finished and again.best == result.best and again.history == result.history
    assert states[0].stat().st_mtime_ns == before


def test_resume_from_a_file_or_a_folder(run):
    result, states, go_on = run
    for resume in (states[1], result.folder, result.folder / "states"):
        states[0].unlink(missing_ok=True)
        assert go_on(resume=str(resume)).history == result.history
    states[0].unlink()
    assert go_on({"path": {"resume_state": str(states[1])}}).history == result.history


def test_auto_without_a_state_starts_from_the_beginning(trained):
    assert trained(resume="auto").iterations == 8


@pytest.mark.parametrize("change, shown", [
    ({"network_g": {"width": 5}}, "network_g.width: None -> 5"),
    ({"datasets": {"train": {"batch_size_per_gpu": 4}}}, "datasets.train.batch_size_per_gpu: 2 -> 4"),
    ({"datasets": {"train": {"size": 16}}}, "datasets.train.size: None -> 16"),
    ({"train": {"total_iter": 7}}, "train.total_iter: 8 -> 7"),
    ({"manual_seed": 4}, "manual_seed: 3 -> 4"),
])
def test_changed_options_are_refused(run, change, shown):
    _, states, go_on = run
    with pytest.raises(CheckpointError) as error:
        go_on(change, resume="auto")
    assert shown in str(error.value) and states[0].name in str(error.value)
    assert "path.pretrain_network_g" in str(error.value)


def test_options_that_change_nothing_may_change(run):
    result, states, go_on = run
    states[0].unlink()
    go_on({"datasets": {"train": {"num_worker_per_gpu": 1}}, "logger": {"print_freq": 2}}, resume="auto")
    assert "print_freq: 2" in (result.folder / "options.yml").read_text()


def test_a_fresh_run_does_not_overwrite_an_old_one(run, tmp_path):
    result, states, go_on = run
    with pytest.raises(OptionError, match="already holds a run.*--resume auto.*name=.*--overwrite"):
        go_on()
    go_on(overwrite=True)
    archived = [p for p in (tmp_path / "experiments").iterdir() if "_archived_" in p.name]
    assert len(archived) == 1 and len(state_files(archived[0] / "states")) == 2


def test_leftovers_of_interrupted_writes_are_removed(run):
    result, states, go_on = run
    leftover = result.folder / "states" / ".00000007.state.abc.part"
    leftover.write_bytes(b"half")
    (result.folder / "pictures" / ".working" / "pictures").mkdir(parents=True)
    go_on(resume="auto")
    assert not leftover.exists() and not (result.folder / "pictures" / ".working").exists()


def test_only_the_newest_states_are_kept(tmp_path):
    for iteration in (5, 10, 15, 100):
        save_state(tmp_path, {"iteration": iteration}, keep=2)
    assert [p.name for p in state_files(tmp_path)] == ["00000100.state", "00000015.state"]


def test_another_version_is_named(tmp_path):
    path = tmp_path / "00000001.state"
    torch.save({"format": "k3dn_plugin.state", "version": 2}, path)
    with pytest.raises(CheckpointError, match="version 2, this package reads version 1"):
        load_state(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(CheckpointError, match="holds none"):
        load_state(path)


def test_weights_are_no_state(run):
    result, _, again = run
    with pytest.raises(CheckpointError, match="holds weights, not a training state.*path.pretrain_network_g="):
        again(resume=result.last_weights)
