"""Going on: for longer, from an older state, with other data; one owner a folder; and every advice works."""
import os
import re
import shlex
import time

import pytest
import torch
from training_questions import STAGES, assert_equal

from k3dn_plugin.console import command_line
from k3dn_plugin.errors import CheckpointError, OptionError, StorageError
from k3dn_plugin.files import FolderLock
from k3dn_plugin.options import load_options
from k3dn_plugin.training import train
from k3dn_plugin.training.state import load_state, save_state, state_files
from k3dn_plugin.zoo.weights import read_weights

CONSTANT = {"train": {"scheduler": {"type": "Constant"}}}


def names(folder):
    return [path.name for path in state_files(folder / "states")]


def last_state(result):
    state = load_state(state_files(result.folder / "states")[0])
    for key in ("seconds", "options", "options_hash"):
        del state[key]
    return state


# Longer

def test_a_finished_run_goes_on_for_longer(trained):
    whole = trained(CONSTANT, {"name": "whole", "train": {"total_iter": 12}})
    trained(CONSTANT, {"name": "parts"})
    parts = trained(CONSTANT, {"name": "parts", "train": {"total_iter": 12}}, resume="auto")
    assert parts.iterations == 12 and parts.finished
    # With a schedule that does not depend on the length it is the very same run, but for one more validation.
    one, two = last_state(whole), last_state(parts)
    for key in ("restorer", "ema", "optimizer", "scheduler", "rng"):
        assert_equal(one[key], two[key], key)


def test_the_rate_is_that_of_the_longer_schedule(trained):
    trained()
    longer = trained({"train": {"total_iter": 16}}, resume="auto")
    whole = trained({"name": "whole", "train": {"total_iter": 16}})
    rates = [{row["iteration"]: row["lr"] for row in result.history if "lr" in row} for result in (longer, whole)]
    assert [rates[0][i] for i in range(9, 17)] == [rates[1][i] for i in range(9, 17)]


def test_the_last_stage_continues(recipe, trained):
    trained(STAGES, CONSTANT)
    path = recipe(STAGES, CONSTANT)
    with pytest.raises(OptionError, match="stages add up to 10; make them agree.*--resume auto"):
        load_options(path, ["train.total_iter=13"])
    options = load_options(path, ["train.total_iter=13"], longer=True)
    assert [stage.total_iter for stage in options.train.stages] == [5, 8]
    result = train(options, resume="auto", device="cpu", quiet=True)
    assert result.iterations == 13 and result.history[-1]["stage"] == "refine"


def test_the_last_phase_continues(recipe, trained):
    phases = {"train": {"phases": [{"iterations": 3, "global_batch": 4}, {"iterations": 5, "global_batch": 2}]}}
    trained(phases, CONSTANT)
    options = load_options(recipe(phases, CONSTANT), ["train.total_iter=10"], longer=True)
    result = train(options, resume="auto", device="cpu", quiet=True)
    assert result.iterations == 10 and result.samples_seen == 3 * 4 + 7 * 2


def test_the_command_goes_on_for_longer(recipe, child, trained):
    trained(STAGES)
    code, output = child("-opt", recipe(STAGES), "--resume", "auto", "--set", "train.total_iter=12").wait()
    assert code == 0 and "finished: 12 iterations" in output, output


def test_a_run_that_is_not_finished_does_not_change_its_length(recipe, child, trained):
    child("-opt", recipe(), TINY_SIGNAL="15:5").wait()
    with pytest.raises(CheckpointError, match="(?s)train.total_iter: 8 -> 12.*once its 8 iterations are done"):
        trained({"train": {"total_iter": 12}}, resume="auto")
    trained(resume="auto")
    assert trained({"train": {"total_iter": 12}}, resume="auto").iterations == 12


def test_longer_changes_nothing_else(trained):
    trained()
    with pytest.raises(CheckpointError) as error:
        trained({"train": {"total_iter": 12, "ema_decay": 0.9}}, resume="auto")
    assert "train.ema_decay: 0.5 -> 0.9" in str(error.value) and "total_iter" not in str(error.value)


# Older states

def test_newer_states_are_put_aside(trained, tmp_path):
    result = trained({"logger": {"keep_checkpoints": 9}})
    end = last_state(result)
    older, copied = result.folder / "states" / "00000002.state", tmp_path / "kept.state"
    copied.write_bytes(older.read_bytes())
    for keep in (older, copied):
        again = trained(resume=str(keep))
        assert again.finished and names(again.folder)[0] == "00000008.state"
        assert_equal(last_state(again), end)
    aside = sorted((result.folder / "states").glob("newer_*"))
    assert len(aside) == 2 and {p.name for p in aside[0].iterdir()} == {
        "00000004.state", "00000006.state", "00000008.state"}


def test_what_is_saved_is_never_deleted_by_its_own_saving(tmp_path):
    for iteration in (100, 200):
        save_state(tmp_path, {"iteration": iteration}, keep=2)
    path = save_state(tmp_path, {"iteration": 7}, keep=1)
    assert path.exists() and [p.name for p in state_files(tmp_path)] == ["00000200.state", "00000007.state"]


# Other data

def test_other_data_at_the_same_place_is_refused(trained, monkeypatch):
    from k3dn_plugin.training import data_module
    trained()
    monkeypatch.setattr(data_module, "data_hash", lambda dataset: "other")
    with pytest.raises(CheckpointError, match="data of stage 'train' at the same place: [0-9a-f?]+ -> other"):
        trained(resume="auto")


def test_a_state_without_a_data_hash_still_opens(trained):
    result = trained()
    path = state_files(result.folder / "states")[0]
    state = load_state(path)
    del state["data"]
    torch.save(state, path)
    assert trained(resume="auto").finished


# One owner

@pytest.mark.parametrize("arguments", [[], ["--resume", "auto"], ["--overwrite"]])
def test_a_second_training_in_the_folder_is_refused(arguments, recipe, child, tmp_path):
    path = recipe({"train": {"total_iter": 500}, "logger": {"save_checkpoint_freq": 1}})
    first = child("-opt", path, TINY_SLOW=0.05)
    while "saved" not in first.output():
        assert first.process.is_alive(), first.output()
        time.sleep(0.02)
    code, output = child("-opt", path, *arguments).wait()
    assert code == 2 and f"in use by another process: process {first.process.pid} on " in output, output
    assert "Traceback" not in output and "(training since" in output
    assert [p.name for p in (tmp_path / "experiments").iterdir() if "_archived_" in p.name] == []
    first.process.kill()
    first.process.join()
    assert train(load_options(path, ["train.total_iter=500"]), resume="auto", device="cpu", quiet=True).finished
    assert {p.name for p in (tmp_path / "experiments").iterdir()} == {"tiny"}, "no lock is left"


def test_a_lock_that_is_left_behind_does_not_matter(trained, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / ".tiny.lock").write_text('{"process": 1, "host": "gone", "work": "x", "since": "y"}')
    assert trained().finished


def test_a_lock_does_not_follow_a_planted_link(trained, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "experiments").mkdir()
    os.symlink(precious, tmp_path / "experiments" / ".tiny.lock")
    with pytest.raises(StorageError, match="tiny.lock"):
        trained()
    assert precious.read_text() == "mine"


def test_this_process_does_not_train_twice_in_a_folder(trained, tmp_path):
    with FolderLock(tmp_path / "experiments" / "tiny", "training", beside=True):
        with pytest.raises(StorageError, match="in use"):
            trained()


def test_the_archive_s_name_may_be_taken(trained, tmp_path, monkeypatch):
    from k3dn_plugin.training import experiment
    monkeypatch.setattr(experiment, "_moment", lambda: "now")
    for _ in range(3):
        trained(overwrite=True)
    assert {p.name for p in (tmp_path / "experiments").iterdir()} == {
        "tiny", "tiny_archived_now", "tiny_archived_now_2"}


# Contents

UNEXPECTED = [
    ("missing rng", lambda s: s.pop("rng")), ("missing options", lambda s: s.pop("options")),
    ("stage 99", lambda s: s.update(stage=99)), ("text", lambda s: s.update(iteration="x")),
    ("negative", lambda s: s.update(iteration=-5)), ("beyond", lambda s: s.update(iteration=99)),
    ("history", lambda s: s.update(history="{")), ("history of a dict", lambda s: s.update(history="{}")),
    ("no weights", lambda s: s.update(restorer={})), ("no optimizer", lambda s: s.update(optimizer={})),
    ("no average", lambda s: s.update(ema=None)), ("no version", lambda s: s.pop("version")),
    ("best", lambda s: s.update(best=5)), ("rng empty", lambda s: s.update(rng=[])),
    ("rng odd", lambda s: s.update(rng=[{"python": 1, "numpy": 2, "torch": 3}])),
    ("options None", lambda s: s.update(options=None)), ("no train", lambda s: s["options"].pop("train")),
    ("scaler", lambda s: s.update(scaler=None)), ("scheduler", lambda s: s.update(scheduler={"a": 1}))]


def test_a_state_of_unexpected_content_is_one_clear_error(trained):
    result = trained({"logger": {"keep_checkpoints": 9}})
    path = result.folder / "states" / "00000006.state"
    good = path.read_bytes()
    for label, change in UNEXPECTED:
        path.write_bytes(good)
        state = load_state(path)
        change(state)
        torch.save(state, path)
        with pytest.raises(CheckpointError, match="damaged|not written by this package|reads version"):
            trained(resume=str(path))
            pytest.fail(label)


# Advice

def advice(text, pattern):
    found = re.search(pattern, text)
    assert found, text
    return shlex.split(found[1])


def test_advice_about_a_folder_in_use_by_an_older_run(recipe, child, trained):
    trained()
    path = recipe()
    code, output = child("-opt", path).wait()
    assert code == 2 and all(word in output for word in ("--resume auto", "--set name=...", "--overwrite"))
    for arguments in (["--resume", "auto"], ["--set", "name=another"], ["--overwrite"]):
        code, output = child("-opt", path, *arguments).wait()
        assert code == 0, output


@pytest.mark.parametrize("stages", [{}, STAGES])
def test_advice_about_changed_options(stages, recipe, child, trained):
    """Also for a run of two stages, whose weights have parts that its first stage lacks."""
    trained(stages)
    changed = recipe(stages, {"manual_seed": 7}, file="changed.yml")
    code, output = child("-opt", changed, "--resume", "auto").wait()
    assert code == 2 and "manual_seed: 3 -> 7" in output
    code, again = child(*advice(output, r"\((-opt \S+ --resume auto)\)")).wait()
    assert code == 0 and "finished" in again, again
    keys = advice(output.replace("name=...", "name=fresh"), r"(--set name=fresh path\.pretrain\S+safetensors)")
    code, fresh = child("-opt", changed, *keys).wait()
    assert code == 0 and "finished" in fresh, fresh
    if stages:
        assert "its 2 tensors that stage 'base' does not have (refine.bias, ...) start anew" in fresh


def test_advice_about_damaged_states(recipe, child, trained):
    result = trained()
    for path in state_files(result.folder / "states"):
        path.write_bytes(b"cut")
    code, output = child("-opt", recipe(), "--resume", "auto").wait()
    assert code == 2 and "all 2 training states" in output
    keys = advice(output.replace("name=...", "name=fresh"), r"(--set name=fresh path\.pretrain\S+safetensors)")
    assert child("-opt", recipe(), *keys).wait()[0] == 0
    assert child("-opt", recipe(), "--overwrite").wait()[0] == 0


def test_weights_in_the_folder_that_is_renamed(trained, tmp_path):
    result = trained()
    start = {"path": {"pretrain_network_g": str(result.last_weights)}}
    with pytest.raises(OptionError, match="lies in the folder that --overwrite renames.*--set name="):
        trained(start, overwrite=True)
    assert names(result.folder)[0] == "00000008.state"
    assert trained(start, {"name": "new"}).finished
    with pytest.raises(CheckpointError, match="no weights file at .*nowhere"):
        trained({"path": {"pretrain_network_g": str(tmp_path / "nowhere.safetensors")}, "name": "none"})
    assert not (tmp_path / "experiments" / "none").exists()


def test_advice_of_a_stopped_run_is_how_it_goes_on(recipe, child):
    path = recipe()
    code, output = child("-opt", path, TINY_SIGNAL="15:5").wait()
    assert code == 143
    arguments = advice(output, re.escape(command_line("train")) + " (.*)")
    code, output = child(*arguments).wait()
    assert code == 0 and "finished: 8 iterations" in output, output


def test_the_best_is_that_of_the_whole_run(trained):
    """A stage that spoils the network does not replace the better weights of the one before."""
    stages = STAGES["train"]["stages"]
    result = trained({"train": {"total_iter": 10, "stages": [
        {**stages[0], "optim_g": {"lr": 1e-5}}, {**stages[1], "optim_g": {"lr": 1.0}}]}})
    scores = {row["iteration"]: row["val/psnr"] for row in result.history if "val/psnr" in row}
    assert max(scores, key=scores.get) <= 5 and result.best["iteration"] == max(scores, key=scores.get)
    best = read_weights(result.best_weights)
    assert (best.provenance["stage"], best.provenance["stages"]) == ("base", ["base", "refine"])
    assert "refine" not in best.network_g
