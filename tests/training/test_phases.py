"""Batches shared out over devices, micro-batches and phases: same samples, whatever the hardware."""
import json

import pytest
from training_questions import assert_equal

from k3dn_plugin.data.sampler import ResumableSampler, phase_at, samples_before
from k3dn_plugin.errors import OptionError
from k3dn_plugin.options import load_options
from k3dn_plugin.training.stages import (
    plan_rows,
    plan_stages,
    plan_text,
    share,
    share_stage,
)
from k3dn_plugin.training.state import load_state, state_files

PLAIN = {"network_g": {"norm": False, "dropout": 0.0}}
PROGRESSIVE = {"train": {"total_iter": 8, "ema_decay": 0.0, "phases": [
    {"iterations": 3, "global_batch": 4, "batch_size_per_gpu": 2},
    {"iterations": 5, "global_batch": 2, "batch_size_per_gpu": 1}]}}


@pytest.mark.parametrize("asked, devices, limit, wanted", [
    (64, 8, 8, (8, 1)), (64, 1, 8, (8, 8)), (40, 2, 8, (5, 4)), (8, 8, 4, (1, 1)), (7, 1, 4, (1, 7)),
    (6, 1, 4, (3, 2))])
def test_share(asked, devices, limit, wanted):
    assert share(asked, devices, limit, "here") == wanted


def test_batches_that_cannot_be_shared_are_reported():
    with pytest.raises(OptionError, match="here: a global batch of 8 cannot be shared evenly by 3"):
        share(8, 3, 4, "here")


def test_counts_over_phases(recipe):
    stage, = plan_stages(load_options(recipe(PROGRESSIVE)))
    phases = share_stage(stage, 1)
    assert [(p.batch_size, p.accumulate, p.global_batch) for p in phases] == [(2, 2, 4), (1, 2, 2)]
    late = [ResumableSampler(7, phases, start_iteration=n) for n in (0, 2, 3, 5, 8)]
    assert [len(sampler) for sampler in late] == [16, 12, 10, 6, 0]
    assert [samples_before(phases, n) for n in (0, 2, 3, 5, 8)] == [0, 8, 12, 16, 22]
    assert [phase_at(phases, n).global_batch for n in (0, 2, 3, 7, 8)] == [4, 4, 2, 2, 2]


@pytest.mark.parametrize("change, message", [
    ({"train": {"phases": [{"iterations": 5, "global_batch": 2}]}}, "have 5 iterations together, the stage 8"),
    ({"train": {"global_batch": 4, "accumulate": 2}}, "train.accumulate is 2, but train also has global_batch")])
def test_recipes_that_contradict_themselves(recipe, change, message):
    with pytest.raises(OptionError, match=message):
        plan_stages(load_options(recipe(change)))


def test_a_global_batch_is_the_same_run_whatever_a_device_holds(trained):
    whole = trained(PLAIN, {"name": "whole", "train": {"global_batch": 4},
                     "datasets": {"train": {"batch_size_per_gpu": 4}}})
    parts = trained(PLAIN, {"name": "parts", "train": {"global_batch": 4},
                     "datasets": {"train": {"batch_size_per_gpu": 1}}})
    assert whole.samples_seen == parts.samples_seen == 32
    for a, b in zip(whole.history, parts.history):
        assert a["loss/pixel"] == pytest.approx(b["loss/pixel"], abs=1e-6)


def test_a_killed_progressive_run_goes_on_with_the_same_bits(recipe, child, trained, tmp_path):
    unbroken = trained(PROGRESSIVE)
    assert unbroken.samples_seen == 22
    state = load_state(state_files(tmp_path / "experiments" / "tiny" / "states")[0])
    (tmp_path / "experiments" / "tiny").rename(tmp_path / "unbroken")
    for where in ("forward:4", "forward:11"):  # in the first phase, and in the second
        path = recipe(PROGRESSIVE)
        code, output = child("-opt", path, "--resume", "auto", TINY_KILL=where).wait()
        assert code < 0, output
    trained(PROGRESSIVE, resume="auto")
    resumed = load_state(state_files(tmp_path / "experiments" / "tiny" / "states")[0])
    for each in (state, resumed):
        for key in ("seconds", "options", "options_hash"):
            del each[key]
    assert_equal(resumed, state)


def test_the_plan_is_what_the_loop_does(recipe, trained):
    options = load_options(recipe(PROGRESSIVE))
    rows = plan_rows(options, 1)
    assert rows[-1]["samples seen"] == str(trained(PROGRESSIVE).samples_seen)
    assert [row["iterations"] for row in rows] == ["1 - 3", "4 - 8"]
    two = plan_rows(options, 2)
    assert [(row["per device"], row["accumulate"], row["samples seen"]) for row in two] == [
        (2, 1, "12"), (1, 1, "22")]
    text = plan_text(options, 2)
    lines = text.splitlines()
    assert lines[0] == "tiny on 2 devices" and len(lines) == 2 + len(two)
    assert all(lines[1].index(name) == lines[2].index(value) for name, value in (("iterations", "1 - 3"),
                                                                                ("learning rate", "0.01 -> ")))
    assert json.dumps(rows)
