"""Folders as Hugging Face's hub knows them: written, read back, described; repositories by their name."""
import json
import sys
import types

import pytest
import torch
import yaml
from tiny_evaluation_parts import EvaluationConv

import k3dn_plugin as k3dn
from k3dn_plugin.errors import CheckpointError, DataError, DependencyError, OptionError
from k3dn_plugin.zoo.weights import save_weights

NETWORK = {"type": "EvaluationConv", "channels": 8}


@pytest.fixture
def loaded(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", EvaluationConv(), network_g=NETWORK, provenance={"iteration": 7})
    return k3dn.load_restorer(tmp_path / "w.safetensors", device="cpu")


def front_matter(text):
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_there_and_back(loaded, tmp_path):
    folder = loaded.save_pretrained(tmp_path / "hub", license="Apache-2.0")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["network_g"] == NETWORK and config["weights_hash"] == loaded.weights_hash
    for read in (k3dn.from_pretrained, k3dn.LoadedRestorer.from_pretrained, k3dn.load_restorer):
        again = read(folder, device="cpu", tile=32, self_ensemble=True)
        assert again.weights_hash == loaded.weights_hash and again.network_g == NETWORK
        assert again.inference.tile == 32 and again.inference.self_ensemble and again.provenance["iteration"] == 7


def test_the_card(loaded, tmp_path):
    card = (loaded.save_pretrained(tmp_path / "hub", license="Apache-2.0") / "README.md").read_text()
    front = front_matter(card)
    assert front["license"] == "apache-2.0" and front["library_name"] == "k3dn_plugin"
    assert front["pipeline_tag"] == "image-to-image" and "dual-pixel" in front["tags"]
    assert "from_pretrained" in card and '"iteration": 7' in card and loaded.weights_hash in card
    plain = (loaded.save_pretrained(tmp_path / "other") / "README.md").read_text()
    assert "license" not in front_matter(plain)
    with pytest.raises(DataError, match="expected an identifier"):
        loaded.save_pretrained(tmp_path / "odd", license="a\nb")
    with pytest.raises(DataError, match="expected an identifier"):
        loaded.save_pretrained(tmp_path / "odd", license=["mit"])


def test_the_hub_reads_the_card(loaded, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    folder = loaded.save_pretrained(tmp_path / "hub", license="apache-2.0")
    data = hub.ModelCard.load(folder / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "k3dn_plugin", "image-to-image")


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for huggingface_hub: `hub.answer` is what a download gives, `hub.asked` what it was asked for."""
    module = types.ModuleType("huggingface_hub")
    module.asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        module.asked.append((name, revision, sorted(allow_patterns)))
        if isinstance(module.answer, Exception):
            raise module.answer
        return str(module.answer)
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_a_repository_is_fetched(loaded, tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.answer = loaded.save_pretrained(tmp_path / "cache")
    assert k3dn.from_pretrained("somebody/net", revision="v1", device="cpu").weights_hash == loaded.weights_hash
    assert hub.asked == [("somebody/net", "v1", ["README.md", "config.json", "model.safetensors"])]
    hub.answer = ConnectionError("no route to host\nmore")
    with pytest.raises(CheckpointError, match="somebody/net is no folder here, and could not .*no route to host.$"):
        k3dn.from_pretrained("somebody/net")


def test_what_is_no_repository_is_not_asked_for(tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "file").write_text("")
    for source in ("experiments/k3dn_dmeo", "k3dn_s_real", str(tmp_path / "nowhere"), "file", "a/b/c", "x" * 300,
                   "owner/" + "x" * 96 + "/x"):
        with pytest.raises(CheckpointError, match="expected a folder that save_pretrained wrote"):
            k3dn.from_pretrained(source)
    for source in (5, None, b"x", ["a"]):
        with pytest.raises(CheckpointError, match="expected a folder"):
            k3dn.from_pretrained(source)
    assert hub.asked == []


def test_a_repository_without_the_package_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match="pip install huggingface_hub"):
        k3dn.from_pretrained("somebody/net")


def test_a_restorer_without_settings_is_not_saved(tmp_path):
    with pytest.raises(OptionError, match="settings that build this restorer are not known"):
        k3dn.load_restorer(EvaluationConv(), device="cpu").save_pretrained(tmp_path / "other")
    with pytest.raises(OptionError, match="needs no folder"):
        k3dn.load_restorer("center", device="cpu").save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
