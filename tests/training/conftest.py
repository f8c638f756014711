"""Tiny recipes, trained in this process or in one of its own."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from k3dn_plugin.options import load_options, merge

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

RECIPE = {
    "name": "tiny", "manual_seed": 3, "custom_imports": ["tiny_training_parts"], "num_threads": 1,
    "datasets": {
        "train": {"type": "TinyPairs", "length": 10, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
        "val": {"type": "TinyPairs", "length": 3, "seed": 9}},
    "network_g": {"type": "TinyRestorer"},
    "train": {
        "total_iter": 8, "optim_g": {"type": "Adam", "lr": 1e-2},
        "scheduler": {"type": "CosineAnnealing"}, "ema_decay": 0.5,
        "losses": {"pixel": {"type": "L1Loss"}, "fft": {"type": "FFTLoss", "weight": 0.1}}},
    "val": {"val_freq": 3, "save_img": 1},
    "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "keep_checkpoints": 2, "use_tb_logger": False},
}

STAGES = {"train": {"total_iter": 10, "stages": [
    {"name": "base", "total_iter": 5},
    {"name": "refine", "total_iter": 5, "network_g": {"refine": True}, "trainable": ["refine.*"],
     "losses": {"pixel": {"type": "L1Loss"}}, "optim_g": {"lr": 1e-3}}]}}


@pytest.fixture
def recipe(tmp_path):
    """`recipe(*changes, file="tiny.yml")`: the path of the tiny recipe with `changes` merged in."""
    def write(*changes, file="tiny.yml"):
        options = merge(RECIPE, {"path": {"experiments_root": str(tmp_path / "experiments")}})
        for change in changes:
            options = merge(options, change)
        path = tmp_path / file
        path.write_text(yaml.safe_dump(options))
        return path
    return write


@pytest.fixture
def trained(recipe):
    """`trained(*changes, **arguments)`: the result of training the tiny recipe in this process."""
    def run(*changes, **arguments):
        from k3dn_plugin.training import train
        return train(load_options(recipe(*changes)), quiet=True, device="cpu", **arguments)
    return run


def run_tool(*arguments, variables=None, wait=True):
    """tools/train.py in a process of its own: a finished process with its output, or a running one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {}),
                   "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *map(str, arguments), "--device", "cpu"]
    if not wait:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def assert_equal(one, other, path="state"):
    """Two nested structures of tensors and plain values have the same bits."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other)):
            assert_equal(a, b, f"{path}[{i}]")
    else:
        assert one == other, path
