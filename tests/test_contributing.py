"""What docs/contributing.md tells people to write works as it stands there."""
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.preparation import prepare
from k3dn_plugin.errors import DataError, RegistryError
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS, MODULES, PREPARERS

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
        path.write_text(block("python", f"class {word}"), encoding="utf-8")
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
