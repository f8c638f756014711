"""Restorers as ONNX files and `torch.export` programs: every one that can, checked against PyTorch."""
import json
import sys

import pytest
import torch

from k3dn_plugin.commands.export import parse_size
from k3dn_plugin.errors import DependencyError, OptionError, StorageError
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.export import TOLERANCE, Exportable, export_restorer
from k3dn_plugin.zoo.load import load_restorer

# Dual-pixel variants are the same code with more channels.
NAMES = [name for name in ARCHS.names() if ARCHS.get(name).__module__.startswith("k3dn_plugin.")
         and not name.endswith("Dual")]


def tiny(name):
    torch.manual_seed(0)
    restorer = ARCHS.build({"type": name, **ARCHS.get(name).tiny_arguments}).eval()
    with torch.no_grad():
        for parameter in restorer.parameters():   # zeros at the start would hide what they multiply
            parameter += 0.02 * torch.randn(parameter.shape)
    return load_restorer(restorer, device="cpu")


# Written as thousands of small operations, which take minutes to convert: DiNAT-IR's neighborhoods.
TAKES_MINUTES = {"DiNATIR"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.skip("its conversion takes minutes") if name in TAKES_MINUTES else ())
    for name in NAMES])
def test_onnx_gives_what_pytorch_gives(name, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")
    loaded, path = tiny(name), tmp_path / "net.onnx"
    size = loaded.restorer.size_rule.padded(64, 64)
    if loaded.card.no_onnx:
        with pytest.raises(OptionError, match=f"{name} cannot be exported as ONNX: {loaded.card.no_onnx[:20]}"):
            export_restorer(loaded, path, size=size)
        return
    made = export_restorer(loaded, path, size=size)
    assert made.difference <= TOLERANCE and made.smallest == size

    import onnx
    model = onnx.load(path)
    facts = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "k3dn"))
    assert facts["restorer"] == name and facts["weights_hash"] == loaded.weights_hash
    assert [entry.name for entry in model.graph.input] == list(Exportable(loaded.restorer).inputs)


@pytest.mark.slow
def test_a_program_of_all_sizes(tmp_path):
    loaded, path = tiny("KPAC"), tmp_path / "net.pt2"
    made = export_restorer(loaded, path, size="dynamic")
    program = torch.export.load(path).module()
    size = loaded.restorer.size_rule.padded(made.smallest[0] + 30, made.smallest[1] + 90)
    pair = torch.rand(1, 6, *size)
    views = (pair, *(torch.rand(1, 3, *size) for _ in Exportable(loaded.restorer).inputs[1:]))
    with torch.no_grad():
        wanted = loaded.restorer(*views)
    torch.testing.assert_close(program(*views), wanted, rtol=1e-4, atol=TOLERANCE)


def test_a_restorer_that_cannot_says_why(tmp_path):
    loaded = tiny("DMENet")
    for suffix, reason in ((".pt2", loaded.card.no_torch_export), (".onnx", loaded.card.no_onnx)):
        with pytest.raises(OptionError, match=f"DMENet cannot be exported .*{reason}"):
            export_restorer(loaded, tmp_path / f"net{suffix}")
    assert not list(tmp_path.iterdir())


def test_wrong_requests(tmp_path, monkeypatch):
    loaded = tiny("IFAN")
    with pytest.raises(OptionError, match=r"expected a name that ends with .onnx or .pt2"):
        export_restorer(loaded, tmp_path / "net.tflite")
    with pytest.raises(OptionError, match="rows and columns from 1 to 16384"):
        export_restorer(loaded, tmp_path / "net.pt2", size=(0, 64))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(DependencyError, match=r"onnx.*pip install"):
        export_restorer(loaded, tmp_path / "net.onnx")


def test_sizes_on_the_command_line():
    assert parse_size(["dynamic"]) == "dynamic" and parse_size(["96", "128"]) == (96, 128)
    for words in (["96"], ["96", "x"], ["0", "64"], ["dynamic", "64"]):
        with pytest.raises(OptionError, match="--size: expected rows and columns"):
            parse_size(words)


@pytest.mark.parametrize("words", [["\u00b2", "4"], ["\u0661", "64"], ["64.0", "64"], ["-4", "4"], ["64"],
                                   ["dynamic", "4"]])
def test_a_size_is_two_plain_numbers(words):
    with pytest.raises(OptionError, match="--size"):
        parse_size(words)


def test_a_size_beyond_all_frames_and_a_place_that_cannot_be_written_are_told_first(tmp_path, monkeypatch):
    from k3dn_plugin.zoo import export
    monkeypatch.setattr(export, "trace", lambda *_, **__: pytest.fail("traced"))
    monkeypatch.setattr(export, "check_onnx", lambda: None)
    loaded = tiny("KPAC")
    with pytest.raises(OptionError, match="16384"):
        export_restorer(loaded, tmp_path / "net.pt2", size=(64, 10 ** 30))
    (tmp_path / "file").write_text("x")
    for suffix in (".pt2", ".onnx"):
        (tmp_path / f"folder{suffix}").mkdir()
        with pytest.raises(OptionError, match="a folder of that name"):
            export_restorer(loaded, tmp_path / f"folder{suffix}", size=(64, 64))
        for name in (f"file/net{suffix}", "n" * 300 + suffix):
            with pytest.raises(StorageError):
                export_restorer(loaded, tmp_path / name, size=(64, 64))
