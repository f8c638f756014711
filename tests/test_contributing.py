"""What docs/contributing.md tells people to write works as it stands there."""
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.data.preparation import prepare
from k3dn_plugin.errors import DataError, RegistryError
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS, FORMATS, METRICS, MODULES, PREPARERS, PSF_FAMILIES
from k3dn_plugin.simulation.psf import PsfSettings, kernel_pair
from k3dn_plugin.zoo.published import load_official

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")


def block(language, word):
    """The fenced block of `language` that mentions `word`."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if word in text]
    assert len(found) == 1, f"{len(found)} blocks of {language} with {word}"
    return found[0]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Import a block of the page as a module, and forget what it registered afterwards."""
    registered = []

    def write(word, known, name=None):
        name = name or word
        if name in known:
            pytest.skip(f"{name} is registered: somebody has followed the page to the letter")
        path = tmp_path / f"{word.lower()}_of_the_page.py"
        path.write_text(block("python", f"class {word}" if word[0].isupper() else f"def {word}"), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        registered.append((known, name))
        return known.get(name)

    yield write
    for known, name in registered:
        known.unregister(name)


def test_the_deblur_module(written):
    written("UnsharpDeblur", MODULES)
    module = MODULES.build({"type": "UnsharpDeblur", "channels": 4, "vector_size": 8, "size": 5})
    features, disparity = torch.rand(2, 4, 24, 36), DisparityFeature(torch.rand(2 * 2 * 3, 8), (2, 3))
    assert module(features, disparity).shape == features.shape


def test_the_restorer_and_its_option_file(written, tmp_path):
    cls = written("PlainDeblur", ARCHS)
    for name in ("_base_/dpdd.yml", "_base_/runtime.yml"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text((ROOT / "options" / name).read_text(encoding="utf-8"), encoding="utf-8")
    recipe = tmp_path / "plain_dpdd.yml"
    recipe.write_text(block("yaml", "PlainDeblur"), encoding="utf-8")
    restorer = ARCHS.build(load_options(recipe).network_g)
    assert isinstance(restorer, cls)
    pair = torch.rand(1, 6, 33, 50)
    assert restorer(pair).shape == (1, 3, 33, 50)
    assert restorer.card.receptive_margin == len(restorer.body) // 2 + 1


def test_the_layout_of_a_data_set(written, tmp_path, monkeypatch):
    import miniatures
    cls = written("SceneFolders", PREPARERS, "scene_folders")
    miniatures.make("scene_folders", tmp_path / "source")
    split, = prepare("scene_folders", tmp_path / "source", tmp_path / "out")
    dataset = DualPixelDataset(store=str(split.store.path))
    left = read_image(tmp_path / "source/two/left.png").transpose(2, 0, 1).astype("float32")
    torch.testing.assert_close(dataset[1]["lq"][:3], torch.from_numpy(left) / 65535)
    assert dataset.card.name == "scene_folders" and dataset.card.licence == "yours"
    (tmp_path / "source/two/right.png").unlink()
    with pytest.raises(DataError, match="there is no image .*two/right.png"):
        prepare("scene_folders", tmp_path / "source", tmp_path / "again")

    with pytest.raises(RegistryError, match=r"'scene_folders' already: scenefolders_of_the_page\.SceneFolders"):
        PREPARERS.register_module(module=type("Another", (cls,), {}))
    assert PREPARERS.get("scene_folders") is cls


def test_the_metric(written):
    written("GradientError", METRICS, "gradient_mae")
    metric = METRICS.build({"type": "gradient_mae"})
    gt = torch.rand(3, 20, 30)
    ramp = torch.arange(30) / 100
    assert metric(gt, gt) == 0 and not metric.higher_is_better
    # 0.01 from column to column and nothing from row to row.
    columns, rows = 3 * 20 * 29, 3 * 19 * 30
    assert metric(gt + ramp, gt) == pytest.approx(0.01 * columns / (columns + rows), rel=1e-4)


def test_the_psf_family(written):
    written("apodized_disc", PSF_FAMILIES)
    pair = kernel_pair(6.0, PsfSettings(family="apodized_disc", parameters={"falloff": 2.0}))
    other = kernel_pair(-6.0, PsfSettings(family="apodized_disc", parameters={"falloff": 2.0}))
    plain = kernel_pair(6.0, PsfSettings(family="half_disc"))
    assert float(pair.left.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(pair.right, pair.left.flip(1))
    torch.testing.assert_close(other.left, pair.right)
    middle = pair.center.shape[0] // 2
    assert pair.center[middle, middle] > 1.5 * plain.center[middle, middle]


def test_the_checkpoint_format(written, tmp_path):
    cls = written("PlainDeblur", ARCHS)
    written("PlainFormat", FORMATS, "plain")
    model = cls(channels=8, depth=4)
    state = {key.replace("body.", "module.net."): value for key, value in model.state_dict().items()}
    torch.save({"params": state}, tmp_path / "plain.pth")
    found = load_official(tmp_path / "plain.pth")
    assert found.network == "plain" and found.settings == {"width": 8, "layers": 4}
    pair = torch.rand(1, 6, 21, 30)
    torch.testing.assert_close(found.restorer(pair), model.eval()(pair))


@pytest.mark.slow
def test_everything_from_a_package_of_your_own(tmp_path):
    """The page's blocks as a package that is installed beside this one, found by its entry points."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    words = {"unsharp": "class UnsharpDeblur", "plain_arch": "class PlainDeblur", "gradient": "class GradientError",
             "apodized": "def apodized_disc", "scene_folders": "class SceneFolders",
             "plain_format": "class PlainFormat"}
    for name, word in words.items():
        (package / f"{name}.py").write_text(block("python", word), encoding="utf-8")
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    declared = block("toml", "my_package").partition("]")[2].replace('"', "")
    (metadata / "entry_points.txt").write_text(f"[k3dn_plugin.components]{declared}")
    code = """
from k3dn_plugin.registry import ARCHS, FORMATS, METRICS, MODULES, PREPARERS, PSF_FAMILIES
for registry, name in ((MODULES, "UnsharpDeblur"), (ARCHS, "PlainDeblur"), (METRICS, "gradient_mae"),
                       (PSF_FAMILIES, "apodized_disc"), (PREPARERS, "scene_folders"), (FORMATS, "plain")):
    print(registry.get(name).__module__)
"""
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["my_package.unsharp", "my_package.plain_arch", "my_package.gradient",
                                   "my_package.apodized", "my_package.scene_folders", "my_package.plain_format"]

    # And each of them by its command.
    for scene in ("one", "two"):
        for number, view in enumerate(("left", "right", "sharp")):
            image = np.random.default_rng([number, len(scene)]).integers(0, 65536, (64, 80, 3), np.uint16)
            write_image(tmp_path / "source" / scene / f"{view}.png", image)
    (tmp_path / "plain.yml").write_text("""
name: plain
datasets:
  train: {type: DualPixelDataset, store: mine/all.lmdb, crop_size: 32, batch_size_per_gpu: 1, num_worker_per_gpu: 0}
  val: {type: DualPixelDataset, store: mine/all.lmdb}
network_g: {type: PlainDeblur, channels: 8, depth: 3}
train: {total_iter: 2, optim_g: {type: AdamW}, scheduler: {type: Constant}, losses: {pixel: {type: L1Loss}}}
""")
    code = """
import torch
from k3dn_plugin.commands import main
from k3dn_plugin.registry import ARCHS
state = ARCHS.build({"type": "PlainDeblur", "channels": 8, "depth": 4}).state_dict()
torch.save({"params": {key.replace("body.", "net."): value for key, value in state.items()}}, "plain.pth")
for line in ("prepare scene_folders --source source --out mine", "train -opt plain.yml",
             "test -opt plain.yml --metrics gradient_mae", "convert plain.pth",
             "simulate --photos source/one --out simulated --count 1 --size 64 64 --psf apodized_disc"):
    assert main(line.split()) == 0, line
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "gradient_mae" in done.stdout and "network: PlainDeblur" in done.stdout
