"""What a run does and leaves: accumulation, precision, averaging, files, and nothing global."""
import json
import logging
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training_parts import TinyPairs
from training_questions import PLAIN, STAGES, assert_equal

from k3dn_plugin.console import command_line
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.options import load_options
from k3dn_plugin.training.graph import TrainingGraph
from k3dn_plugin.training.state import load_state, state_files
from k3dn_plugin.zoo.weights import read_weights, restorer_from_weights


def last_state(result):
    return load_state(state_files(result.folder / "states")[0])


def test_result_and_files(trained):
    result = trained()
    assert result.finished and result.stopped_by == 0
    assert (result.iterations, result.samples_seen) == (8, 16) and result.seconds > 0
    assert [row["iteration"] for row in result.history] == list(range(1, 9))
    assert [row["iteration"] for row in result.history if "val/psnr" in row] == [3, 6, 8]
    assert result.scores["iteration"] == 8 and result.best["scores"]["psnr"] >= result.scores["psnr"]
    names = {p.name for p in result.folder.iterdir()}
    assert names == {"options.yml", "options_diff.txt", "train.log", "metrics.csv", "models", "states",
                     "pictures"}
    assert [p.name for p in state_files(result.folder / "states")] == ["00000008.state", "00000006.state"]
    assert {p.name for p in (result.folder / "pictures").iterdir()} == {
        f"tiny_00_{i:08d}.png" for i in (3, 6, 8)}
    log = (result.folder / "train.log").read_text()
    assert "[tiny..][train, epoch:  0, iter:       1, lr:(1.000e-02,)] [eta: 0:00:" in log
    assert "finished: 8 iterations" in log and f"next: {command_line('test')} -opt" in log


def test_weights_are_those_that_were_validated(trained):
    result = trained()
    file, state = read_weights(result.last_weights), last_state(result)
    assert_equal(file.state, dict(state["ema"]))
    assert not torch.equal(state["ema"]["first.weight"], state["restorer"]["first.weight"])
    assert file.provenance["iteration"] == 8 and file.provenance["validation"]["iteration"] == 8
    assert file.provenance["origin"] == "trained here" and file.provenance["samples_seen"] == 16
    assert isinstance(file.provenance["seed"], int)
    assert restorer_from_weights(result.best_weights).card.title == "Tiny"


def test_stored_options_make_the_same_run(trained, recipe, tmp_path):
    from k3dn_plugin.training import train
    first = load_options(recipe(), ["train.optim_g.lr=0.02", "name=other"])
    result = train(first, quiet=True, device="cpu")
    again = load_options(result.folder / "options.yml")
    assert again.hash() == first.hash() == last_state(result)["options_hash"]
    difference = (result.folder / "options_diff.txt").read_text()
    assert "train.optim_g.lr: 0.01 -> 0.02" in difference and first.hash() in difference


def test_two_runs_have_the_same_bits(trained):
    one = last_state(trained())
    two = last_state(trained(overwrite=True))
    for state in (one, two):
        del state["seconds"]
    assert_equal(one, two)


def test_accumulated_micro_batches_equal_the_whole_batch(trained):
    whole = trained(PLAIN, {"datasets": {"train": {"batch_size_per_gpu": 4}}})
    parts = trained(PLAIN, {"name": "parts", "train": {"accumulate": 2}})
    assert whole.samples_seen == parts.samples_seen == 32
    for one, two in zip(whole.history, parts.history):
        assert one["loss/pixel"] == pytest.approx(two["loss/pixel"], abs=1e-6)
    one, two = (last_state(r)["restorer"] for r in (whole, parts))
    for key in one:
        assert torch.allclose(one[key], two[key], atol=1e-6)


def test_gradient_clipping_bounds_the_step(trained):
    sgd = {"train": {"optim_g": {"type": "SGD", "lr": 1.0}, "scheduler": {"type": "Constant"},
                     "grad_clip": 1e-3, "total_iter": 1, "ema_decay": 0.0}}
    moved = last_state(trained(PLAIN, sgd, {"name": "moved"}))["restorer"]
    still = last_state(trained(PLAIN, sgd, {"name": "still", "train": {"grad_clip": 1e-12}}))["restorer"]
    step = sum(((moved[k] - still[k]).double() ** 2).sum() for k in moved if k != "table") ** 0.5
    assert step.item() == pytest.approx(1e-3, rel=1e-2)


def test_bfloat16_trains_near_float32(trained):
    exact = trained(PLAIN)
    half = trained(PLAIN, {"name": "half", "train": {"amp": "bfloat16"}})
    losses = [[row["loss/pixel"] for row in r.history] for r in (exact, half)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_float16_on_the_cpu_is_refused(trained):
    with pytest.raises(OptionError, match="float16 needs a GPU.*bfloat16"):
        trained({"train": {"amp": "float16"}})


@pytest.mark.parametrize("amp", [None, "bfloat16"])
def test_a_step_reads_no_number_before_its_end(amp, trained, monkeypatch):
    """On a GPU each such reading would make the host wait for all that is queued."""
    from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

    from k3dn_plugin.training.distributed import ProcessGroup
    from k3dn_plugin.training.trainer import Trainer
    seen, step, share, fetch = [], Trainer._step, ProcessGroup.share, Trainer._fetch

    class Readings(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
                seen.append(str(func))
            return func(*args, **(kwargs or {}))

    def watched(self, batches):
        with Readings():
            step(self, batches)

    def counted(self, losses, number):
        seen.append("share")
        return share(self, losses, number)

    def fetched(self, batches):
        with _disable_current_modes():  # the loader's own numbers are on the host
            return fetch(self, batches)
    monkeypatch.setattr(Trainer, "_fetch", fetched)
    monkeypatch.setattr(Trainer, "_step", watched)
    monkeypatch.setattr(ProcessGroup, "share", counted)
    trained(PLAIN, {"datasets": {"val": None}, "train": {
        "ema_decay": 0.0, "grad_clip": 1.0, "amp": amp, "accumulate": 2, "optim_g": {"type": "AdamW"}}})
    assert seen == ["share"] * 8


def test_compile_wraps_the_whole_graph(trained, monkeypatch):
    compiled = []
    monkeypatch.setattr(TrainingGraph, "compile", lambda self: compiled.append(self))
    trained({"train": {"compile": True}})
    assert len(compiled) == 1


def test_cuda_that_is_not_there(trained, recipe):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    from k3dn_plugin.training import train
    with pytest.raises(OptionError, match="--device cuda: torch sees no CUDA device"):
        train(load_options(recipe()), device="cuda", quiet=True)


def test_missing_data_is_reported_before_anything_is_written(trained, tmp_path):
    for split in ("train", "val"):
        with pytest.raises(DataError, match="no data in"):
            trained({"datasets": {split: {"root": str(tmp_path / "nowhere")}}})
    with pytest.raises(DataError, match="no data in"):
        trained(STAGES, {"train": {"stages": [STAGES["train"]["stages"][0], {
            **STAGES["train"]["stages"][1], "datasets_train": {"root": str(tmp_path / "nowhere")}}]}})
    assert not (tmp_path / "experiments").exists()


def test_a_protocol_that_does_not_fit_is_reported_before_anything_is_written(trained, tmp_path, monkeypatch):
    card = SimpleNamespace(name="tiny8", bit_depth=8, linear=False)
    monkeypatch.setattr(TinyPairs, "card", card, raising=False)
    with pytest.raises(OptionError, match="protocol dpdd16 is defined on 16-bit frames, tiny8 holds 8-bit ones"):
        trained({"val": {"protocol": "dpdd16"}})
    assert not list(tmp_path.glob("experiments/tiny*"))
    with pytest.raises(DataError, match="TinyPairs holds no image to score"):
        trained({"datasets": {"val": {"type": "TinyPairs", "length": 0}}})
    assert not list(tmp_path.glob("experiments/tiny*"))


def test_no_validation_data(trained):
    result = trained({"datasets": {"val": None}})
    assert result.finished and result.best is None and result.best_weights is None
    assert result.last_weights.exists()


def test_training_starts_from_pretrained_weights(trained):
    first = trained()
    second = trained({"name": "second", "path": {"pretrain_network_g": str(first.last_weights)},
                      "train": {"optim_g": {"lr": 1e-12}, "ema_decay": 0.0}})
    one, two = read_weights(first.last_weights).state, read_weights(second.last_weights).state
    assert torch.allclose(one["first.weight"], two["first.weight"], atol=1e-6)


def test_tensorboard_holds_losses_and_scores_and_forgets_what_is_computed_again(trained):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = {"logger": {"use_tb_logger": True}}
    result = trained(board)
    # As if it had been killed after iteration 8 with the state of iteration 6 as the last one.
    state_files(result.folder / "states")[0].unlink()
    trained(board, resume="auto")
    read = events.EventAccumulator(str(result.folder / "tb"))
    read.Reload()
    assert [e.step for e in read.Scalars("loss/pixel")] == list(range(1, 9))
    assert [e.step for e in read.Scalars("val/psnr")] == [3, 6, 8]


def test_nothing_global_is_left_behind(trained):
    logger = logging.getLogger("k3dn_plugin.training")

    def everything():
        return {"threads": torch.get_num_threads(), "torch": torch.get_rng_state().tolist(),
                "python": random.getstate(), "numpy": str(np.random.get_state()),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "fill": torch.utils.deterministic.fill_uninitialized_memory,
                "handlers": list(logger.handlers), "level": logger.level, "propagate": logger.propagate,
                "int": signal.getsignal(signal.SIGINT), "term": signal.getsignal(signal.SIGTERM),
                "group": torch.distributed.is_initialized()}
    before = everything()
    trained()
    with pytest.raises(DataError):
        trained({"name": "bad", "datasets": {"val": {"root": "/nowhere/at/all"}}})
    assert everything() == before


def test_state_is_plain_data(trained):
    state = last_state(trained())
    assert state["iteration"] == 8 and state["world_size"] == 1 and state["batch"] == 2
    assert json.loads(state["history"])[-1]["iteration"] == 8
    assert {"restorer", "ema", "optimizer", "scheduler", "scaler", "rng", "best"} <= state.keys()
