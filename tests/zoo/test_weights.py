"""Weights files: what they hold, and one clear error for each way in which a file can be wrong."""
import json
import random

import pytest
import torch
from safetensors.torch import save_file

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.errors import CheckpointError, StorageError
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.weights import (
    differing_settings,
    load_pretrained,
    load_weights,
    read_weights,
    restorer_from_weights,
    save_weights,
)

CARD = RestorerCard(title="t", paper="t", year=2026, venue="t", official_license="t")


@ARCHS.register_module(name="WeightsTestNet")
class WeightsTestNet(Restorer):
    card = CARD

    def __init__(self, *, width: int = 4, residual: bool = False, tied: bool = False):
        super().__init__()
        self.first = torch.nn.Conv2d(6, width, 1)
        self.last = torch.nn.Conv2d(width, 3, 1)
        self.other = self.last if tied else torch.nn.Identity()
        self.register_buffer("table", torch.arange(3))

    def restore(self, views):
        return self.last(self.first(views))


@ARCHS.register_module(name="OtherTestNet")
class OtherTestNet(Restorer):
    card = CARD

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Conv2d(6, 3, 1)

    def restore(self, views):
        return self.body(views)


def build(**arguments):
    return ARCHS.build({"type": "WeightsTestNet", **arguments})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "best.safetensors"
    model = build(width=5)
    save_weights(path, model, network_g={"type": "WeightsTestNet", "width": 5}, provenance={"iteration": 7})
    return path, model


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_round_trip(saved):
    path, model = saved
    file = read_weights(path)
    assert same(file.state, model.state_dict())
    assert file.network_g == {"type": "WeightsTestNet", "width": 5} and file.provenance == {"iteration": 7}
    restored = restorer_from_weights(path)
    assert same(restored.state_dict(), model.state_dict()) and not restored.training
    assert load_weights(path, build(width=5)).path == path


def test_tied_weights_are_saved(tmp_path):
    path, model = tmp_path / "tied.safetensors", build(tied=True)
    save_weights(path, model, network_g={"type": "WeightsTestNet", "tied": True}, provenance={})
    assert same(restorer_from_weights(path).state_dict(), model.state_dict())


def test_other_settings_are_named(saved):
    with pytest.raises(CheckpointError) as error:
        load_weights(saved[0], build(), network_g={"type": "WeightsTestNet"})
    text = str(error.value)
    assert "best.safetensors" in text and "width: 5 stored, 4 wanted" in text and "first.weight" in text


def test_another_network_is_named(saved):
    with pytest.raises(CheckpointError) as error:
        load_weights(saved[0], OtherTestNet())
    text = str(error.value)
    assert 'stored: WeightsTestNet {width: 5}' in text and "wanted: OtherTestNet" in text
    assert "body.weight" in text and "first.weight" in text


def test_settings_that_fit_but_compute_otherwise_warn(saved):
    wanted = {"type": "WeightsTestNet", "width": 5, "residual": True}
    with pytest.warns(UserWarning, match="residual: False stored, True wanted"):
        load_weights(saved[0], build(width=5, residual=True), network_g=wanted)


def test_defaults_count_as_settings():
    assert differing_settings({"type": "WeightsTestNet"}, {"type": "WeightsTestNet", "width": 4}) == []


def test_pretrained_not_strict_takes_what_fits(saved):
    path, model = saved
    other = build(width=5)
    other.extra = torch.nn.Conv2d(3, 3, 1)
    other.last = torch.nn.Conv2d(5, 4, 1)
    lines = load_pretrained(path, other, strict=False)
    assert torch.equal(other.first.weight, model.first.weight)
    assert "last.weight: another shape" in lines and "extra.weight: not in the file" in lines
    with pytest.raises(CheckpointError, match="none of its"):
        load_pretrained(path, OtherTestNet(), strict=False)


def test_missing_file_names_its_neighbours(saved):
    with pytest.raises(CheckpointError, match="no weights file.*best.safetensors"):
        read_weights(saved[0].with_name("bset.safetensors"))
    with pytest.raises(CheckpointError, match="is a folder"):
        read_weights(saved[0].parent)


@pytest.mark.parametrize("keep", [9, 60, -3])
def test_truncated_file(saved, keep):
    path = saved[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="best.safetensors is damaged or cut short"):
        read_weights(path)


@pytest.mark.parametrize("content, kind", [(b"", "an empty file"), (b"PK\x03\x04 a zip file", "PyTorch"),
                                           (b"hello, this is a text", "begins with b'hello, ")])
def test_not_safetensors(tmp_path, content, kind):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=kind):
        read_weights(path)


def test_safetensors_of_another_program(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="of no network known here"):
        read_weights(path)


def test_full_disk_keeps_the_old_file(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save_weights(path, build(width=5), network_g={"type": "WeightsTestNet"}, provenance={})
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_header_is_readable_json(saved):
    data = saved[0].read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"]["format"] == "k3dn_plugin"


def changed_header(path, *, keep_hash=False, **metadata):
    """The bytes of a weights file whose header's metadata says something else."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    if not keep_hash:
        del header["__metadata__"]["content_sha256"]
    header["__metadata__"].update(metadata)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length:]


def test_changed_content_is_noticed(saved):
    path, model = saved
    data = path.read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    for at in (length, length + 5, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        with pytest.raises(CheckpointError, match="damaged.*its content is not what was written"):
            read_weights(path)
    for words in ({"network_g": '{"type": "WeightsTestNet", "width": 5, "residual": true}'},
                  {"provenance": '{"iteration": 8}'}):
        path.write_bytes(data)
        path.write_bytes(changed_header(path, keep_hash=True, **words))
        with pytest.raises(CheckpointError, match="its content is not what was written"):
            read_weights(path)
    # Any single bit of the file: an error, or the very same content.
    draw = random.Random(0)
    for _ in range(60):
        at = draw.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1:])
        try:
            file = read_weights(path)
        except CheckpointError:
            continue
        assert same(file.state, model.state_dict())
        assert file.network_g["width"] == 5 and file.provenance == {"iteration": 7}


def test_older_files_have_no_hash(saved):
    path, model = saved
    path.write_bytes(changed_header(path, provenance='{"iteration": 9}'))
    file = read_weights(path)
    assert same(file.state, model.state_dict()) and file.provenance == {"iteration": 9}


@pytest.mark.parametrize("network_g, words", [
    ('{"type": "WeightsTestNet", "width": 1000000000}', "shapes differ"),
    ('{"type": "WeightsTestNet", "width": -3}', "its settings build no network"),
    ('{"type": "WeightsTestNet", "width": "5"}', "its settings build no network.*expected int"),
    ('{"type": "WeightsTestNet", "depth": 5}', "is not an argument"),
    ('{"type": "Restormer", "blocks": [10000000, 1, 1, 1]}', "a network far larger than its 5 tensors"),
    ('{"type": "Nothing"}', "no restorer is registered as 'Nothing'"),
    ('{"type": 5}', "expected mappings `network_g`"), ("[]", "expected mappings"), ("{", "damaged"),
    ("[" * 20000, "damaged"),
    ('{"type": "WeightsTestNet", "width": ' + "9" * 5000 + "}", "damaged"),
])
def test_settings_that_build_nothing(saved, network_g, words):
    path = saved[0]
    path.write_bytes(changed_header(path, network_g=network_g))
    with pytest.raises(CheckpointError, match=words):
        restorer_from_weights(path)


@pytest.mark.parametrize("provenance", ["[]", "null", "5", '"x"', "{"])
def test_provenance_that_is_none(saved, provenance):
    saved[0].write_bytes(changed_header(saved[0], provenance=provenance))
    with pytest.raises(CheckpointError, match="best.safetensors is damaged"):
        read_weights(saved[0])
