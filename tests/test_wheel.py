"""The wheel, installed in an empty folder, trains, prepares and restores without a checkout."""
import os
import subprocess
import sys
from pathlib import Path

import cv2
import miniatures
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`installed(*arguments)` runs `k3dn` of the wheel in a folder of its own, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(folder), str(ROOT)],
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    wheel, = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    work = folder / "work"
    work.mkdir()

    def run(*arguments):
        done = subprocess.run([sys.executable, str(folder / "site" / "bin" / "k3dn"), *map(str, arguments)], cwd=work,
                              capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr
    run.folder = work
    return run


@pytest.mark.slow
def test_a_recipe_by_name_trains_and_restores(installed, tiny_store):
    small = ["network_g.base_channels=4", "network_g.encoder_blocks=1", "train.total_iter=2",
             "logger.save_checkpoint_freq=2", "val.val_freq=2", "val.save_img=0", "datasets.train.num_worker_per_gpu=0"]
    installed("train", "-opt", "k3dn_demo", "--device", "cpu", "--set", "name=wheel", "train.stages=null", *small,
              f"datasets.train.store={tiny_store}", f"datasets.val.store={tiny_store}")
    weights = installed.folder / "experiments" / "wheel" / "models" / "last.safetensors"
    assert weights.is_file()
    for name, seed in (("l", 0), ("r", 1)):
        picture = np.random.default_rng(seed).integers(0, 256, (64, 72, 3), np.uint8)
        cv2.imwrite(str(installed.folder / f"{name}.png"), picture)
    installed("restore", "--left", "l.png", "--right", "r.png", "-o", "sharp.png", "--weights", weights, "--device",
              "cpu")
    assert cv2.imread(str(installed.folder / "sharp.png")).shape == (64, 72, 3)


@pytest.mark.slow
def test_dpdd_is_prepared_with_its_official_lists(installed):
    miniatures.make("dpdd", installed.folder / "source")
    installed("prepare", "dpdd", "--source", "source", "--out", "stores")
    assert (installed.folder / "stores" / "test.lmdb").is_dir()
    from k3dn_plugin.data.preparation.dpdd import LISTS
    site = installed.folder.parent / "site"
    found = subprocess.run([sys.executable, "-c", "from k3dn_plugin.data.preparation.dpdd import LISTS; "
                            "print(len((LISTS / 'train_pairs.txt').read_text().splitlines()))"],
                           cwd=installed.folder, capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(site)})
    assert int(found.stdout) == len((LISTS / "train_pairs.txt").read_text().splitlines()) > 0


@pytest.mark.slow
def test_the_released_weights_are_inside(installed):
    there = installed.folder.parent / "site" / "k3dn_plugin" / "zoo" / "released"
    wanted = sorted(path.name for path in (ROOT / "k3dn_plugin" / "zoo" / "released").iterdir())
    assert sorted(path.name for path in there.iterdir()) == wanted and "README.md" in wanted
    page = installed("list", "--weights")
    assert all(Path(name).stem in page for name in wanted if name.endswith(".safetensors"))


@pytest.mark.slow
def test_the_console_command_explains_itself(installed):
    page = installed("--help")
    for word in ("train", "restore", "prepare", "check-parity", "restore photographs:"):
        assert word in page
