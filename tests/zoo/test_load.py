"""One way in: every kind of source, pictures in the caller's type, and one clear error for what is wrong."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import k3dn_plugin as k3dn
from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import CheckpointError, DataError, OptionError, SizeError
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo import sources
from k3dn_plugin.zoo.content import weights_hash
from k3dn_plugin.zoo.load import load_restorer
from k3dn_plugin.zoo.weights import save_weights

NETWORK = {"type": "LoadTestNet", "width": 5}
DRAW = np.random.default_rng(0)


@ARCHS.register_module(name="LoadTestNet")
class LoadTestNet(Restorer):
    card = RestorerCard(title="a test", paper="none", year=2026, venue="none", official_license="none",
                        size_rule=SizeRule((4, 4)), receptive_margin=8, half_precision=("bfloat16",))

    def __init__(self, *, width: int = 4, gain: float = 1.0):
        super().__init__()
        self.body = nn.Conv2d(6, width, 3, padding=1)
        self.out = nn.Conv2d(width, 3, 1)
        self.gain = gain

    def restore(self, views):
        return views[:, :3] + self.gain * self.out(self.body(views))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = ARCHS.build(NETWORK)
    path = tmp_path / "run" / "models" / "best.safetensors"
    save_weights(path, model, network_g=NETWORK, provenance={"run": "a run", "iteration": 7})
    return path, model


def pair(dtype="u1", shape=(30, 45, 3), count=2):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return [(DRAW.random(shape) * top).astype(dtype) for _ in range(count)]


def test_every_source_of_our_weights(saved, tmp_path, monkeypatch):
    path, model = saved
    monkeypatch.setenv("K3DN_TEST_FOLDER", str(tmp_path))
    monkeypatch.setattr(sources, "RELEASED", tmp_path / "released")
    released = tmp_path / "released" / "k3dn_test.safetensors"
    save_weights(released, model, network_g=NETWORK, provenance={})
    folder = load_restorer(path, device="cpu").save_pretrained(tmp_path / "pretrained")
    for source in (path, str(path), path.parents[1], "$K3DN_TEST_FOLDER/run", folder, "k3dn_test"):
        loaded = k3dn.load_restorer(source, device="cpu")
        assert isinstance(loaded, k3dn.LoadedRestorer) and loaded.weights_hash == weights_hash(model)
        assert loaded.network_g == NETWORK and len(loaded.sha256) == 64 and not loaded.restorer.training
        assert loaded.settings == {"type": "LoadTestNet", "width": 5, "gain": 1.0}
    loaded = load_restorer(path, device="cpu")
    assert loaded.provenance["iteration"] == 7 and loaded.name == "a run" and loaded.facts["file"] == str(path)


def test_a_file_is_read_once(saved, monkeypatch):
    path, real, read = saved[0], os.open, []

    def counting(file, *more, **named):
        read.append(str(file))
        return real(file, *more, **named)
    monkeypatch.setattr(os, "open", counting)
    loaded = load_restorer(path, device="cpu")
    path.unlink()
    assert loaded.sha256 and loaded.facts and loaded.weights_hash and loaded.settings
    loaded.restore(*pair())
    assert read.count(str(path)) == 1


def test_center_and_restorers():
    left, right, center = pair(count=3)
    loaded = load_restorer("center", device="cpu")
    assert np.array_equal(loaded.restore(left, right, center), center) and loaded.name == "center"
    assert loaded.facts == {"origin": "none: the center view as it is"} and loaded.sha256 is None
    model = LoadTestNet().train()
    given = load_restorer(model, device="cpu", tile=16)
    assert given.restorer is model and given.inference.tile == 16 and given.facts == {"origin": "in memory"}
    again = load_restorer(given, device="cpu", self_ensemble=True)
    assert again.restorer is model and again.inference.tile is None and again.inference.self_ensemble


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(30, 45, 3), (30, 45), (1, 1, 3), (17, 3, 3)])
def test_pictures_in_the_callers_type(saved, dtype, shape):
    left, right = pair(dtype, shape)
    loaded = load_restorer(saved[0], device="cpu")
    sharp = loaded.restore(left, right)
    assert isinstance(sharp, np.ndarray) and sharp.dtype == left.dtype and sharp.shape == left.shape
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    planes = [torch.from_numpy(np.atleast_3d(v).astype("f8") / top).float().permute(2, 0, 1).expand(3, -1, -1)[None]
              for v in (left, right)]
    with torch.no_grad():
        wanted = saved[1](torch.cat(planes, 1))[0].clamp(0, 1).permute(1, 2, 0).double().numpy() * top
    wanted = wanted.mean(-1) if len(shape) == 2 else wanted
    assert np.abs(sharp.astype("f8") - wanted).max() <= (1e-5 if top == 1 else 0.51)


def test_tensors_tiles_and_progress(saved):
    calls = []
    whole = load_restorer(saved[0], device="cpu")
    tiled = load_restorer(saved[0], device="cpu", tile=48, self_ensemble=True)
    left, right = pair("f4", (80, 100, 3))
    lq = torch.from_numpy(np.concatenate([left, right], 2)).permute(2, 0, 1)[None].contiguous()
    frame = tiled.restore_tensor(lq, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n + 1, calls[-1][1]) for n in range(len(calls))] and calls[-1][0] == calls[-1][1] > 4
    assert "tiles" in frame.tiling and frame.image.shape == (1, 3, 80, 100)
    calls.clear()
    whole.restore(left, right, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 1)]
    with pytest.raises(SizeError, match="expected .B, 6, H, W."):
        whole.restore_tensor(lq[:, :3])
    for wrong in (left, (lq * 255).to(torch.uint8)):
        with pytest.raises(DataError, match="expected a float tensor"):
            whole.restore_tensor(wrong)


def test_wrong_settings(saved):
    path = saved[0]
    for words, settings in (("precision: expected float32", {"dtype": "int8"}), ("give one of them", {
            "dtype": "float32", "precision": "bf16"}), ("compile: expected", {"compile": "no"}), (
            "does not keep its accuracy in float16", {
            "dtype": torch.float16}), ("tile: expected", {"tile": 0}), ("tile: expected", {"tile": 2.5}), (
            "max_memory_gb: expected", {"max_memory_gb": float("nan")}), ("device: expected", {"device": "gpu"}), (
            "self_ensemble: expected", {"self_ensemble": "no"})):
        with pytest.raises(OptionError, match=words):
            load_restorer(path, **{"device": "cpu", **settings})
    assert load_restorer(path, device="cpu", dtype=torch.bfloat16).inference.facts()["amp"] == "bfloat16"
    assert load_restorer(path, device="cpu", dtype="float32").inference.half is None


def test_sources_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no weights file at k3dn_s_reel.*Released weights: "):
        load_restorer("k3dn_s_reel")
    monkeypatch.setattr(sources, "released_names", lambda: ["k3dn_s_real", "k3dn_l"])
    with pytest.raises(CheckpointError, match="Did you mean 'k3dn_s_real'. Released weights: k3dn_s_real, k3dn_l"):
        load_restorer("k3dn_s_reel")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty is a folder"):
        load_restorer(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe"):
        load_restorer(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for odd in ("", "a\0b", "x" * 300, tmp_path / "loop", 5, None):
        with pytest.raises(CheckpointError):
            load_restorer(odd)


@pytest.mark.parametrize("run", ["../../escaped", "/absolute", "a/b", "a\\b", "", ".", "..", ".hidden", "a\0b", "a\nb",
                                 " a", "a ", "a.", "x" * 300, "\ud800", "~", 5, ["x"], None, {"a": 1}])
def test_no_file_chooses_where_results_go(saved, tmp_path, run):
    path = tmp_path / "weights.safetensors"
    save_weights(path, saved[1], network_g=NETWORK, provenance={"run": run})
    assert load_restorer(path, device="cpu").name == "weights"


def test_restoring_imports_nothing_of_training(saved):
    code = ("import sys, numpy as np, k3dn_plugin as k3dn\n"
            "restorer = k3dn.load_restorer('center')\n"
            "restorer.restore(*np.zeros((2, 8, 8, 3), np.uint8))\n"
            "print(*sorted(n for n in sys.modules if n.startswith('k3dn_plugin.')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=Path(k3dn.__file__).resolve().parents[1])
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[1] for name in done.stdout.split()}
    assert "inference" in loaded
    assert not loaded & {"training", "evaluation", "comparison", "analysis", "bridges", "doctor", "commands"}, loaded
