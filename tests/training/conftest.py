"""Tiny recipes, trained in this process or in one of its own."""
import multiprocessing
import time

import pytest
import tiny_training_parts
import yaml

from k3dn_plugin.options import load_options, merge

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
    "val": {"val_freq": 3, "save_img": 1, "protocol": "full_float"},
    "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "keep_checkpoints": 2, "use_tb_logger": False},
}


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


class Child:
    """tools/train.py in a process of its own, forked from one that has imported torch already."""

    # Not a plain fork of this process: torch's threads would not survive that.
    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(["tiny_training_parts", "k3dn_plugin.training.run", "torch._dynamo",
                                     "cv2", "skimage.metrics", "scipy.ndimage"])

    def __init__(self, folder, *arguments, **variables):
        self._output = folder / f"output_{time.monotonic_ns()}.txt"
        variables = {key: str(value) for key, value in variables.items()}
        self.process = self._context.Process(target=tiny_training_parts.train_in_child, args=(
            [*map(str, arguments), "--device", "cpu"], variables, str(self._output)))
        self.process.start()

    def wait(self, seconds=120):
        """`(exit code, output)`; a process killed by a signal has its negative number."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.output()}")
        return self.process.exitcode, self.output()

    def output(self):
        return self._output.read_text() if self._output.exists() else ""


@pytest.fixture
def child(tmp_path):
    """`child("-opt", path, ..., TINY_KILL="forward:3")`: a running `Child`."""
    children = []

    def start(*arguments, **variables):
        children.append(Child(tmp_path, *arguments, **variables))
        return children[-1]
    yield start
    for each in children:
        if each.process.is_alive():
            each.process.kill()
