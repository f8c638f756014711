"""A package of somebody else's, found by its entry point, trains from an option file with no edit here."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import write_image

ROOT = Path(__file__).resolve().parents[1]

RESTORER = '''
"""A restorer that lives in a package of its own."""
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.registry import ARCHS, PREPARERS


@ARCHS.register_module()
class Foreign(Restorer):
    card = RestorerCard(title="Foreign", paper="none", year=2026, venue="none", official_license="none")

    def __init__(self, *, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(6, width, 3, padding=1), nn.ReLU(),
                                    nn.Conv2d(width, 3, 3, padding=1))

    def restore(self, views):
        return self.layers(views)
'''

PREPARER = '''
from k3dn_plugin.data.preparation import PREPARERS, Preparer
from k3dn_plugin.data.preparation.base import SceneFiles, Split


@PREPARERS.register_module()
class Foreign(Preparer):
    name, title, tree = "foreign", "a layout of somebody else's", "  SOURCE/SCENE_VIEW.png"

    def find(self, source):
        return [Split("all", [SceneFiles(scene, {view: source / f"{scene}_{view}.png" for view in ("left", "right")})
                              for scene in ("one", "two")])]
'''

RECIPE = """
name: foreign
datasets:
  train: {{type: DualPixelDataset, store: {store}, crop_size: [32, 32], batch_size_per_gpu: 2}}
network_g: {{type: Foreign, width: 6}}
path: {{experiments_root: {folder}/experiments}}
train:
  total_iter: 3
  optim_g: {{type: Adam, lr: 1e-3}}
  losses: {{pixel: {{type: L1Loss}}}}
logger: {{use_tb_logger: false}}
"""


def install(folder, module="foreign_restorer", entry="foreign_restorer"):
    (folder / f"{module}.py").write_text(RESTORER)
    info = folder / "foreign_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[k3dn_plugin.components]\nforeign = {entry}\n")


def run(folder, *command):
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
                               "OMP_NUM_THREADS": "1"})


def test_a_foreign_restorer_trains(tiny_store, tmp_path):
    install(tmp_path)
    (tmp_path / "recipe.yml").write_text(RECIPE.format(store=tiny_store, folder=tmp_path))
    done = run(tmp_path, str(ROOT / "tools" / "train.py"), "-opt", "recipe.yml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "experiments" / "foreign" / "models" / "last.safetensors").is_file()


def test_a_broken_entry_point_warns_and_harms_nobody(tmp_path):
    install(tmp_path, entry="no_such_module_of_theirs")
    done = run(tmp_path, "-c", "from k3dn_plugin import ARCHS, list_restorers\n"
                               "print(list_restorers('k3dn'))\n"
                               "try: ARCHS.get('Foreign')\n"
                               "except Exception as error: print(error)")
    assert "['K3DN']" in done.stdout
    assert "no_such_module_of_theirs" in done.stderr and "entry point foreign" in done.stdout


def test_a_foreign_layout_of_a_data_set_is_prepared(tmp_path):
    install(tmp_path)
    (tmp_path / "foreign_restorer.py").write_text(PREPARER)
    draw = np.random.default_rng(0)
    for name in ("one_left", "one_right", "two_left", "two_right"):
        write_image(tmp_path / f"source/{name}.png", draw.integers(0, 256, (24, 32, 3), np.uint8))
    done = run(tmp_path, str(ROOT / "tools" / "prepare_data.py"), "foreign", "--source", "source", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "2 scenes of left, right" in done.stdout and (tmp_path / "out" / "all.lmdb").is_dir()
