"""`precision: auto`, what cards say of bfloat16, and networks that are compiled."""
import csv
import dataclasses
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import FAITHFUL_DB, RestorerCard, SizeRule
from k3dn_plugin.errors import DependencyError, OptionError
from k3dn_plugin.inference import compiled, settings
from k3dn_plugin.inference.frames import FrameRestorer
from k3dn_plugin.inference.settings import InferenceSettings
from k3dn_plugin.layers.precise import PreciseConv2d
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.load import load_restorer

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, compiled.COMPILERS)), reason="there is no C++ compiler")
MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "precision.csv"


class PlainConv(Restorer):
    card = RestorerCard(title="a test", paper="none", year=2026, venue="none", official_license="none",
                        size_rule=SizeRule((4, 4)), receptive_margin=8, bfloat16_db=60.0)

    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def restore(self, views):
        return self.out(views)


class ConvRelu(PlainConv):
    def restore(self, views):
        return self.out(views).relu()


def with_card(**changes):
    restorer = PlainConv()
    restorer.card = dataclasses.replace(PlainConv.card, **changes)
    return restorer


def test_cards_say_what_was_measured():
    with open(MEASURED, newline="", encoding="utf-8") as file:
        measured = {row["restorer"]: float(row["bfloat16_db"]) for row in csv.DictReader(file)}
    names = [name for name in ARCHS.names() if ARCHS.get(name).__module__.startswith("k3dn_plugin.")]
    said = {name: ARCHS.get(name).card.bfloat16_db for name in names if ARCHS.get(name).card.bfloat16_db is not None}
    assert said == measured, "python benchmarks/precision.py, then bfloat16_db of the cards"
    assert set(names) - set(said) <= {"PreservedRestorer"}   # which wraps another


@pytest.mark.parametrize("card, fast, half", [
    ({}, True, "bfloat16"), ({}, False, None), ({"bfloat16_db": FAITHFUL_DB - 0.1}, True, None),
    ({"bfloat16_db": None}, True, None), ({"half_precision": ()}, True, None)])
def test_auto_takes_bfloat16_where_it_is_faithful_and_fast(card, fast, half, monkeypatch):
    monkeypatch.setattr(settings, "bfloat16_is_fast", lambda device: fast)
    loaded = load_restorer(with_card(**card), device="cpu", precision="auto")
    assert loaded.inference.half == half and loaded.inference.facts()["amp"] == half
    pair = torch.rand(1, 6, 16, 16)
    plain = load_restorer(PlainConv(), device="cpu", precision=half)
    plain.restorer.load_state_dict(loaded.restorer.state_dict())
    assert torch.equal(loaded.restore_tensor(pair).image, plain.restore_tensor(pair).image)


def test_short_names_and_undecided_settings():
    assert InferenceSettings(precision="bf16") == InferenceSettings(precision=torch.bfloat16)
    assert InferenceSettings() == InferenceSettings(precision="float32")
    with pytest.raises(OptionError, match="not decided"):
        InferenceSettings(precision="auto").facts()


def test_a_precise_convolution_leaves_autocast_out():
    layer, image = PreciseConv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(image), nn.Conv2d.forward(layer, image).float()) is False
        assert layer(image.bfloat16()).dtype == torch.float32
    assert layer.bfloat16()(image.bfloat16()).dtype == torch.bfloat16


def test_no_compiler_is_reported_before_anything_runs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DependencyError, match=r"C\+\+ compiler \(no-such-compiler, as CXX says\).*without compile"):
        FrameRestorer(PlainConv(), InferenceSettings(compile=True))


def test_a_failing_compiler_is_reported(monkeypatch):
    def fails(graph, inputs):
        raise RuntimeError("ld: cannot find -lm")
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: original(model, backend=fails))
    torch._dynamo.reset()
    call = compiled.compiled(PlainConv().eval(), torch.device("cpu"))
    with pytest.raises(DependencyError, match=r"PlainConv could not be compiled .*cannot find -lm"):
        call(torch.rand(1, 6, 16, 16))


def test_the_processor_is_looked_at_beside_the_trace_and_once(monkeypatch):
    from torch._inductor import cpu_vec_isa
    looked, began = [], threading.Event()

    def look():
        looked.append(threading.current_thread())
        began.set()
        raise OSError("no compiler")   # is not told twice
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", look)
    monkeypatch.setattr(threading, "excepthook", lambda told: pytest.fail(str(told)))
    compiled.look_at_processor.cache_clear()
    for _ in range(2):
        compiled.look_at_processor()
    assert began.wait(60)
    looked[0].join()
    assert len(looked) == 1 and looked[0] is not threading.main_thread()


@pytest.mark.slow
@needs_compiler
def test_compiled_tiles_are_the_same():
    restorer, pair = PlainConv().eval(), torch.rand(1, 6, 48, 64)
    torch._dynamo.reset()
    plain = load_restorer(restorer, device="cpu", tile=32)
    fast = load_restorer(restorer, device="cpu", tile=32, compile=True)
    assert fast.inference.facts()["compile"] is True and "compile" not in plain.inference.facts()
    torch.testing.assert_close(fast.restore_tensor(pair).image, plain.restore_tensor(pair).image)


@pytest.mark.slow
@needs_compiler
def test_compiled_convolutions_take_in_what_follows_them_and_new_weights():
    torch.manual_seed(0)
    restorer, others, pair = ConvRelu().eval(), ConvRelu().eval(), torch.rand(1, 6, 32, 32)
    torch._dynamo.reset()
    call = compiled.compiled(restorer, torch.device("cpu"))
    with torch.inference_mode():
        torch.testing.assert_close(call(pair), restorer(pair))
        with torch.profiler.profile() as profile:
            call(pair)
        names = {event.name for event in profile.events()}
        if torch.backends.mkldnn.is_available():
            assert "mkldnn::_convolution_pointwise" in names and "aten::convolution" not in names
        restorer.load_state_dict(others.state_dict())
        torch.testing.assert_close(call(pair), others(pair))
        torch.testing.assert_close(compiled.compiled(restorer, torch.device("cpu"))(pair), others(pair))


@pytest.mark.slow
@needs_compiler
def test_a_folder_of_many_sizes_is_compiled_throughout():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    call = compiled.compiled(ConvRelu().eval(), torch.device("cpu"))
    with torch.inference_mode():
        for rows in range(16, 26):
            call(torch.rand(1, 6, rows, 16))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 10


@pytest.mark.slow
@needs_compiler
def test_compiled_bfloat16_is_finite_whatever_order_the_weights_were_in():
    torch.manual_seed(0)
    restorer = ARCHS.build({"type": "K3DN", "base_channels": 16, "full_channels": 10, "encoder_blocks": 1,
                            "disparity": None, "deblur": None}).eval()
    views = torch.rand(1, 6, 288, 336)
    wanted = load_restorer(restorer, device="cpu", precision="bf16").restore_tensor(views)
    found = load_restorer(restorer, device="cpu", precision="bf16", compile=True).restore_tensor(views)
    torch.testing.assert_close(found.image, wanted.image, rtol=0, atol=0.01)
