import pickle

import cv2
import lmdb
import numpy as np
import pytest

from k3dn_plugin.data import LmdbStore, StoreWriter, open_store
from k3dn_plugin.data.store.basicsr import BasicSRStore, export_basicsr
from k3dn_plugin.errors import DataError


@pytest.fixture
def exported(tiny_store, tmp_path):
    export_basicsr(LmdbStore(tiny_store), tmp_path / "basicsr")
    return tmp_path / "basicsr"


def test_an_export_reads_as_the_same_frames(tiny_store, exported):
    ours, theirs = LmdbStore(tiny_store), open_store(exported)
    assert isinstance(theirs, BasicSRStore) and theirs.names == ours.names
    assert theirs.manifest.facts["bit_depth"] == 16
    for name in ours.names:
        for view in ("left", "right", "center", "sharp"):
            np.testing.assert_array_equal(theirs.read(name, view), ours.read(name, view))
            part = theirs.read(name, view, slice(5, 20), slice(7, 9))
            np.testing.assert_array_equal(part, ours.read(name, view, slice(5, 20), slice(7, 9)))
            assert theirs.scene(name).views[view].shape == ours.scene(name).views[view].shape
    assert not list(theirs.damaged_frames())
    assert pickle.loads(pickle.dumps(theirs)).hash == theirs.hash


def test_the_layout_is_basicsrs(exported):
    """As BasicSR's own reader takes it apart: keys before the first dot, PNG values."""
    lines = (exported / "left.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines[0] == "scene_000.png (96,112,3) 1" and len(lines) == 6
    with lmdb.open(str(exported / "left.lmdb"), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            value = transaction.get(lines[3].split(".")[0].encode("ascii"))
    assert cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_the_hash_follows_the_pixels(tmp_path):
    hashes = set()
    for number in range(3):
        frame = np.full((40, 50, 3), 500, np.uint16)
        frame[20, 20, 1] += number
        with StoreWriter(tmp_path / f"{number}.lmdb", dataset="x") as writer:
            writer.add("a", {"left": frame})
            export_basicsr(writer.finish(), tmp_path / f"{number}")
        hashes.add(open_store(tmp_path / f"{number}").hash)
    assert len(hashes) == 3


def test_other_names_of_views_are_understood(exported):
    (exported / "left.lmdb").rename(exported / "inputL_crops.lmdb")
    (exported / "sharp.lmdb").rename(exported / "gt.lmdb")
    assert sorted(open_store(exported).scene("scene_001").views) == ["center", "left", "right", "sharp"]


def test_one_database_alone(exported):
    assert list(open_store(exported / "left.lmdb").scene("scene_001").views) == ["left"]


def test_eight_bits_and_gray(tmp_path):
    draw = np.random.default_rng(0)
    frames = {"left": draw.integers(0, 256, (20, 30, 1), np.uint8),
              "right": draw.integers(0, 256, (20, 30, 3), np.uint8)}
    with StoreWriter(tmp_path / "a.lmdb", dataset="x") as writer:
        writer.add("a.b", frames)
        export_basicsr(writer.finish(), tmp_path / "out")
    store = open_store(tmp_path / "out")
    assert store.names == ("a_b",) and store.manifest.facts["bit_depth"] == 8
    for view in frames:
        np.testing.assert_array_equal(store.read("a_b", view), frames[view])


def test_a_missing_key_names_database_key_and_nearest(exported):
    with lmdb.open(str(exported / "right.lmdb"), map_size=2**26) as environment:
        with environment.begin(write=True) as transaction:
            transaction.delete(b"scene_004")
    with pytest.raises(DataError, match="right.lmdb: no key 'scene_004'.*Nearest: 'scene_00"):
        open_store(exported)
    with pytest.raises(DataError, match="no scene 'scene_9'.*Nearest: 'scene_00"):
        open_store(exported / "left.lmdb").read("scene_9", "left")


@pytest.mark.parametrize("line, message", [
    ("scene_000.png 96x112 1", "line 1: expected `name.png"),
    ("other.png (96,112,3) 1", "the key 'other' is not in .*center.lmdb"),
    ("scene_000.png (96,113,3) 1", "meta_info.txt says")])
def test_a_meta_file_that_does_not_fit(exported, line, message):
    meta = exported / "left.lmdb" / "meta_info.txt"
    meta.write_text("\n".join([line, *meta.read_text().splitlines()[1:]]))
    with pytest.raises(DataError, match=message):
        open_store(exported).read("scene_000", "left")


def test_names_that_say_no_view_or_one_twice(exported):
    (exported / "left.lmdb").rename(exported / "l.lmdb")
    (exported / "right.lmdb").rename(exported / "left.lmdb")
    with pytest.raises(DataError, match="both l.lmdb and left.lmdb would be the left view"):
        open_store(exported)
    for old, new in [("l", "x"), ("left", "y"), ("center", "z"), ("sharp", "w")]:
        (exported / f"{old}.lmdb").rename(exported / f"{new}.lmdb")
    with pytest.raises(DataError, match="no database's name says which view"):
        open_store(exported)


def test_an_export_is_not_overwritten(tiny_store, exported):
    with pytest.raises(DataError, match="exists already"):
        export_basicsr(LmdbStore(tiny_store), exported)


@pytest.mark.parametrize("text, message", [
    (b"\xff\xfe\n", "expected text in UTF-8"),
    ("a.png (٦٤,96,3) 1\n".encode(), "line 1: expected `name.png"),
    (b"a.png (99999999999,96,3) 1\n", "line 1: expected `name.png"), 
    (b"a.png (0,96,3) 1\n", "line 1.*at least one pixel"),
    (b"../../x.png (96,112,3) 1\n", "line 1.*none of them empty"), (b"a\0b.png (96,112,3) 1\n", "line 1"),
    (b"x" * 600 + b".png (96,112,3) 1\n", "line 1.*480 bytes"), (b"", "lists no image")])
def test_malformed_lists_are_one_error(exported, text, message):
    (exported / "left.lmdb" / "meta_info.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        open_store(exported)


@pytest.mark.parametrize("value", [b"", b"text", b"\x89PNG\r\n\x1a\n\0\0", b"\x89PNG\r\n\x1a\n" + b"\x10" * 16])
def test_values_that_are_no_pictures_are_one_error(exported, value):
    with lmdb.open(str(exported / "left.lmdb"), map_size=2**28) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"scene_000", value)
    with pytest.raises(DataError, match="scene_000"):
        open_store(exported).read("scene_000", "left")
