import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
import store_builder

from k3dn_plugin.data import LmdbStore, StoreWriter, open_store
from k3dn_plugin.data.store.manifest import MANIFEST_KEY, MAPS, VIEWS, frame_key
from k3dn_plugin.errors import DataError, StorageError

BUILDER = Path(store_builder.__file__)


def run_builder(path, *arguments):
    return subprocess.run([sys.executable, str(BUILDER), str(path), *arguments], capture_output=True,
                          text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(BUILDER.parents[2])})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return store_builder.build(tmp_path_factory.mktemp("unbroken") / "a.lmdb")


def assert_same(store, other):
    assert store.hash == other.hash and store.manifest.scenes == other.manifest.scenes
    assert not list(store.damaged_frames())


# What goes in comes out

@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_frames_come_out_as_they_went_in(tmp_path, dtype):
    draw = np.random.default_rng(0)
    frames = {view: (draw.random((30, 50, 3)) * 200).astype(dtype) for view in VIEWS}
    frames |= {name: draw.standard_normal((30, 50)).astype(np.float32) for name in MAPS}
    with StoreWriter(tmp_path / "a.lmdb", dataset="x") as writer:
        writer.add("seq_1/frame 7", frames, tags={"place": "indoor"}, crops={"set": [[0, 3]]})
        store = writer.finish()
    assert store.names == ("seq_1/frame 7",) and len(store) == 1
    scene = store.scene("seq_1/frame 7")
    assert (scene.tags, scene.crops, scene.size) == ({"place": "indoor"}, {"set": [[0, 3]]}, (30, 50))
    for view, frame in frames.items():
        np.testing.assert_array_equal(store.read("seq_1/frame 7", view), frame)
        assert store.read("seq_1/frame 7", view).dtype == frame.dtype
        crop = store.read("seq_1/frame 7", view, slice(3, 20), slice(40, 50))
        np.testing.assert_array_equal(crop, frame[3:20, 40:50])
        assert crop.flags.c_contiguous and crop.flags.writeable


def test_views_of_any_memory_layout(tmp_path):
    frame = np.arange(60 * 40 * 3, dtype=np.uint16).reshape(40, 60, 3)
    turned = np.rot90(frame)[:, ::-1]
    with StoreWriter(tmp_path / "a.lmdb", dataset="x") as writer:
        writer.add("a", {"left": turned, "right": turned})
        store = writer.finish()
    np.testing.assert_array_equal(store.read("a", "left"), turned)
    assert not list(store.damaged_frames())


def test_scenes_are_sorted_whatever_the_order_of_adding(tmp_path):
    hashes = []
    for number, order in enumerate(([0, 1, 2], [2, 0, 1])):
        with StoreWriter(tmp_path / f"{number}.lmdb", dataset="x") as writer:
            for i in order:
                writer.add(f"s{i}", store_builder.frames(i))
            assert writer.names == ("s0", "s1", "s2")
            hashes.append(writer.finish().hash)
    assert hashes[0] == hashes[1]


def test_sources_are_recorded_by_their_place_below_the_root(tmp_path):
    file = tmp_path / "source" / "l" / "1.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"content")
    with StoreWriter(tmp_path / "a.lmdb", dataset="x", source_root=tmp_path / "source") as writer:
        writer.add("a", store_builder.frames(0), sources={"left": file})
        record = writer.finish().scene("a").views["left"]
    assert record.source == "l/1.png"
    assert record.source_sha256 == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_the_map_grows_as_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("k3dn_plugin.data.store.writer._START_SIZE", 2**15)
    assert len(store_builder.build(tmp_path / "a.lmdb")) == store_builder.SCENES


# Processes

def test_a_store_pickles_and_is_shared_within_a_process(tiny_store):
    store = LmdbStore(tiny_store)
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("scene_001", "left"), store.read("scene_001", "left"))
    assert again._environment is store._environment


def test_a_store_survives_a_fork(tiny_store):
    store = LmdbStore(tiny_store)
    expected = store.read("scene_001", "left")
    child = os.fork() if hasattr(os, "fork") else pytest.skip("no fork here")
    if child == 0:
        same = np.array_equal(store.read("scene_001", "left"), expected)
        also = np.array_equal(LmdbStore(tiny_store).read("scene_001", "left"), expected)
        os._exit(0 if same and also else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(store.read("scene_001", "left"), expected)


def test_two_writers_of_one_store_are_refused(tmp_path):
    with StoreWriter(tmp_path / "a.lmdb", dataset="x"), pytest.raises(DataError, match="another process"):
        StoreWriter(tmp_path / "a.lmdb", dataset="x")


# Kills and full disks

KILLS = ["frames:1", "frames:3", "commit:1", "commit:4", "manifest", "before_rename", "after_rename"]


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_build_resumes_to_the_same_store(tmp_path, unbroken, kill):
    path = tmp_path / "a.lmdb"
    assert run_builder(path, kill).returncode == -signal.SIGKILL
    if kill == "after_rename":
        assert_same(LmdbStore(path), unbroken)
        return
    for name in (path, path.with_name("a.lmdb.partial")):
        with pytest.raises(DataError, match="not finished.*Run the same command again"):
            open_store(name)
    assert_same(store_builder.build(path), unbroken)
    assert os.listdir(tmp_path) == ["a.lmdb"]


def test_a_build_killed_at_random_again_and_again(tmp_path, unbroken):
    path = tmp_path / "a.lmdb"
    draw = random.Random(0)
    for _ in range(6):
        child = os.fork() if hasattr(os, "fork") else pytest.skip("no fork here")
        if child == 0:
            store_builder.build(path)
            os._exit(0)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            break
    assert_same(LmdbStore(path) if path.exists() else store_builder.build(path), unbroken)


@pytest.mark.parametrize("size", [0, 100, 4096])
def test_a_build_killed_while_the_database_was_made(tmp_path, unbroken, size):
    partial = tmp_path / "a.lmdb.partial"
    partial.mkdir()
    (partial / "data.mdb").write_bytes(bytes(size))
    assert_same(store_builder.build(tmp_path / "a.lmdb"), unbroken)


def test_a_full_disk_is_one_error_and_the_build_goes_on(tmp_path, unbroken):
    path = tmp_path / "a.lmdb"
    result = run_builder(path, "limit:130000")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "could not write" in result.stderr and str(path) in result.stderr
    assert "Run the same command again" in result.stderr
    assert not path.exists()
    with StoreWriter(path, dataset="killed", facts={"bit_depth": 16}) as writer:
        assert 0 < len(writer) < store_builder.SCENES
    assert_same(store_builder.build(path), unbroken)


def test_no_permission_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        StoreWriter(tmp_path / "file" / "a.lmdb", dataset="x")


# What a writer refuses

def test_an_interrupted_build_with_other_facts_is_refused(tmp_path):
    with StoreWriter(tmp_path / "a.lmdb", dataset="x", facts={"bit_depth": 16}) as writer:
        writer.add("a", store_builder.frames(0))
    with pytest.raises(DataError, match=r"bit_depth: 16 there, 8 now.*Delete that folder"):
        StoreWriter(tmp_path / "a.lmdb", dataset="x", facts={"bit_depth": 8})
    with pytest.raises(DataError, match="data set: 'x' there, 'y' now"):
        StoreWriter(tmp_path / "a.lmdb", dataset="y", facts={"bit_depth": 16})
    with StoreWriter(tmp_path / "a.lmdb", dataset="x", facts={"bit_depth": 16}) as writer:
        assert "a" in writer and "b" not in writer


def test_what_a_writer_refuses(tmp_path):
    left = np.zeros((8, 9, 3), np.uint16)
    with StoreWriter(tmp_path / "a.lmdb", dataset="x") as writer:
        with pytest.raises(DataError, match="no scene was added"):
            writer.finish()
        writer.add("a", {"left": left, "right": left})
        for name, frames, message in [
                ("a", {"left": left}, "'a' is added twice"),
                ("b", {"left": left, "right": left[:4]}, r"differ in size.*right \(4, 9\)"),
                ("b", {"left": left, "up": left}, "no view is called 'up'"),
                ("b", {"left": left.astype(np.float64)}, "float64"),
                ("b", {"left": left[..., 0]}, r"expected \(H, W, 3\)"),
                ("b", {"disparity": left.astype(np.float32)}, r"expected \(H, W\)"),
                ("b", {}, "no frames"),
                ("/b", {"left": left}, "cannot name a scene"),
                ("b" * 501, {"left": left}, "cannot name a scene")]:
            with pytest.raises(DataError, match=message):
                writer.add(name, frames)
        writer.finish()
    with pytest.raises(DataError, match="exists already"):
        StoreWriter(tmp_path / "a.lmdb", dataset="x")


# What a reader refuses

def test_a_missing_key_names_database_key_and_nearest(tiny_store):
    store = LmdbStore(tiny_store)
    with pytest.raises(DataError) as error:
        store.read("scene_03", "left")
    assert all(part in str(error.value) for part in (str(tiny_store), "'scene_03'", "'scene_003'"))
    with pytest.raises(DataError, match="has no view 'disparity', only center, left, right, sharp"):
        store.read("scene_003", "disparity")
    assert store.has("scene_003", "left") and not store.has("scene_003", "defocus")


def test_a_missing_folder_names_it_and_two_ways_on(tmp_path):
    with pytest.raises(DataError) as error:
        open_store(tmp_path / "dpdd" / "train.lmdb")
    assert str(tmp_path / "dpdd" / "train.lmdb") in str(error.value)
    assert f"k3dn prepare NAME --source DIR --out {tmp_path / 'dpdd'}" in str(error.value)
    assert "make demo" in str(error.value)


def test_a_frame_that_the_database_lost(tmp_path):
    store = store_builder.build(tmp_path / "a.lmdb")
    del store
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=2**28) as environment:
        with environment.begin(write=True) as transaction:
            transaction.delete(frame_key("scene_2", "left"))
            transaction.put(frame_key("scene_3", "left"), b"short")
            transaction.put(frame_key("scene_4", "left"), bytes(40 * 60 * 3 * 2))
    store = LmdbStore(tmp_path / "a.lmdb")
    with pytest.raises(DataError, match="'frame/scene_2/left' is missing.*damaged"):
        store.read("scene_2", "left")
    with pytest.raises(DataError, match="'frame/scene_3/left' has 5 bytes, not 14400"):
        store.read("scene_3", "left")
    assert list(store.damaged_frames()) == [(f"scene_{i}", "left") for i in (2, 3, 4)]


def test_a_database_that_was_cut_off(tmp_path):
    store_builder.build(tmp_path / "a.lmdb")
    os.truncate(tmp_path / "a.lmdb" / "data.mdb", 100_000)
    with pytest.raises(DataError, match="data.mdb has 100,000 bytes.*cut off"):
        LmdbStore(tmp_path / "a.lmdb")


def change_manifest(path, change):
    with lmdb.open(str(path), map_size=2**28) as environment, environment.begin(write=True) as transaction:
        transaction.put(MANIFEST_KEY, change(json.loads(transaction.get(MANIFEST_KEY))))


@pytest.mark.parametrize("change, message", [
    (lambda m: json.dumps({**m, "version": 99}).encode(), "store format 99.*Prepare the data again"),
    (lambda m: json.dumps({**m, "format": "other"}).encode(), "its manifest says 'other'"),
    (lambda m: b"{", "its manifest is damaged"),
    (lambda m: json.dumps({**m, "scenes": [{}]}).encode(), "its manifest is damaged"),
    (lambda m: json.dumps({**m, "complete": False}).encode(), "was not finished")])
def test_a_manifest_that_cannot_be_used(tmp_path, change, message):
    store_builder.build(tmp_path / "a.lmdb")
    change_manifest(tmp_path / "a.lmdb", change)
    with pytest.raises(DataError, match=message):
        LmdbStore(tmp_path / "a.lmdb")


def test_what_is_not_a_store(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "data.mdb").write_bytes(b"junk" * 9999)
    with lmdb.open(str(tmp_path / "foreign")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    for name, message in [("empty", "a folder without it"), ("file", "found a file"),
                          ("junk", "not readable as an LMDB database"), ("foreign", "without a manifest")]:
        with pytest.raises(DataError, match=message):
            open_store(tmp_path / name)


def test_a_store_made_anew_at_the_same_path(tmp_path):
    import shutil
    first = store_builder.build(tmp_path / "a.lmdb")
    shutil.rmtree(tmp_path / "a.lmdb")
    with StoreWriter(tmp_path / "a.lmdb", dataset="x") as writer:
        writer.add("new", store_builder.frames(0))
        second = writer.finish()
    assert second.names == ("new",) and first.names[0] == "scene_0"
    np.testing.assert_array_equal(second.read("new", "left"), first.read("scene_0", "left"))


# Corruption and impossible facts

def flip(path, content):
    """Change one bit in the middle of the place in data.mdb where `content` stands."""
    data = bytearray((path / "data.mdb").read_bytes())
    place = data.find(content)
    assert place > 0
    data[place + len(content) // 2] ^= 1
    (path / "data.mdb").write_bytes(data)


def test_a_changed_bit_is_noticed_when_the_frame_is_first_read(tmp_path):
    store_builder.build(tmp_path / "a.lmdb")
    frame = store_builder.frames(2)["left"]
    flip(tmp_path / "a.lmdb", frame.tobytes())
    store = LmdbStore(tmp_path / "a.lmdb")
    for place in ((), (slice(0, 2), slice(0, 2))):
        with pytest.raises(DataError, match="the left frame of scene 'scene_2' is damaged.*Copy the folder again"):
            store.read("scene_2", "left", *place)
    np.testing.assert_array_equal(store.read("scene_2", "right"), store_builder.frames(2)["right"])
    assert list(store.damaged_frames()) == [("scene_2", "left")]


def test_a_changed_bit_in_the_manifest_is_noticed(tmp_path):
    store_builder.build(tmp_path / "a.lmdb")
    change_manifest(tmp_path / "a.lmdb",
                    lambda m: json.dumps({**m, "facts": {**m["facts"], "licence": "free"}}).encode())
    with pytest.raises(DataError, match="its manifest is damaged: it is not what was written"):
        LmdbStore(tmp_path / "a.lmdb")


def test_an_interrupted_build_checks_what_it_kept(tmp_path, unbroken):
    path = tmp_path / "a.lmdb"
    assert run_builder(path, "commit:5").returncode == -signal.SIGKILL
    flip(path.with_name("a.lmdb.partial"), store_builder.frames(1)["sharp"].tobytes())
    with StoreWriter(path, dataset="killed", facts={"bit_depth": 16}) as writer:
        assert writer.damaged == ("scene_1",) and "scene_1" not in writer and "scene_2" in writer
    assert_same(store_builder.build(path), unbroken)


@pytest.mark.parametrize("facts, message", [
    ({"full_scale": 0}, "full_scale is 0"), ({"full_scale": float("nan")}, "full_scale"),
    ({"bit_depth": "16"}, "bit_depth"), ({"full_scale": {"left": -1}}, "full_scale"),
    ({"black_level": "x"}, "black_level"), ({"linear": "no"}, "linear is 'no'"),
    ({"disparity_axis": None}, "disparity_axis"), ({"crop_sets": {"a": {"size": [0, 4]}}}, "crop set 'a'")])
def test_impossible_facts_are_refused_when_written_and_when_read(tmp_path, facts, message):
    with pytest.raises(DataError, match=f"impossible facts.*{message}"):
        StoreWriter(tmp_path / "b.lmdb", dataset="x", facts=facts)
    store_builder.build(tmp_path / "a.lmdb")
    change_manifest(tmp_path / "a.lmdb", lambda m: json.dumps({**m, "facts": {**m["facts"], **facts}}).encode())
    with pytest.raises(DataError, match=f"its manifest is damaged: .*{message}"):
        LmdbStore(tmp_path / "a.lmdb")


def test_crops_outside_their_frame_are_refused(tmp_path):
    facts = {"crop_sets": {"p": {"size": [16, 16]}}}
    with StoreWriter(tmp_path / "a.lmdb", dataset="x", facts=facts) as writer:
        for origin in ([30, 0], [0, 50], [-1, 0], [0.5, 0], [1]):
            with pytest.raises(DataError, match="crop set 'p' of scene 'a'|origins of crop set 'p'"):
                writer.add("a", store_builder.frames(0), crops={"p": [[0, 0], origin]})
        writer.add("a", store_builder.frames(0), crops={"p": [[24, 44]]})
        writer.finish()


@pytest.mark.parametrize("change", [
    {"name": 5}, {"name": "../x"}, {"views": {}}, {"views": None}, {"tags": [1]}, {"crops": {"a": "x"}},
    *({"left": change} for change in (
        None, {"shape": [-40, 60, 3]}, {"shape": [2**31, 2**31, 3]}, {"shape": "abc"}, {"shape": [40, 60]},
        {"dtype": "object"}, {"dtype": ["u2"]}, {"stored_as": 5}, {"stored_as": "manifest"},
        {"stored_as": "frame/\ud800"}, {"sha256": None}, {"unknown": 1}))])
def test_impossible_records_are_one_error(tmp_path, change):
    store_builder.build(tmp_path / "a.lmdb")

    def changed(manifest):
        scene = manifest["scenes"][0]
        if "left" in change:
            scene["views"]["left"] = change["left"] and {**scene["views"]["left"], **change["left"]}
        else:
            scene.update(change)
        return json.dumps(manifest).encode()
    change_manifest(tmp_path / "a.lmdb", changed)
    with pytest.raises(DataError, match="its manifest is damaged"):
        LmdbStore(tmp_path / "a.lmdb")


def test_links_in_the_way_of_a_build_are_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.lmdb.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="found a link"):
        StoreWriter(tmp_path / "a.lmdb", dataset="x")
    (tmp_path / "b.lmdb.partial").mkdir()
    for name in ("data.mdb", "lock.mdb"):
        (tmp_path / "b.lmdb.partial" / name).symlink_to(tmp_path / "elsewhere" / "data")
        with pytest.raises(DataError, match="found a link"):
            StoreWriter(tmp_path / "b.lmdb", dataset="x")
        (tmp_path / "b.lmdb.partial" / name).unlink()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_adding_a_scene_does_not_look_through_the_others(tmp_path):
    counted = []

    class Counting(dict):
        def values(self):
            counted.append(1)
            return super().values()
    with StoreWriter(tmp_path / "a.lmdb", dataset="x") as writer:
        writer.add("first", store_builder.frames(0))
        writer._known = Counting(writer._contents())
        for number in range(1, 5):
            writer.add(f"s{number}", store_builder.frames(number))
    assert not counted
