import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import miniatures
import numpy as np
import pytest

from k3dn_plugin.data import open_store
from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.data.preparation import get_preparer, prepare
from k3dn_plugin.data.preparation.dpdd import LISTS, official_pairs
from k3dn_plugin.errors import DataError, OptionError, StorageError
from k3dn_plugin.files import FolderLock
from k3dn_plugin.registry import PREPARERS

TOOL = Path(__file__).parents[2] / "tools" / "prepare_data.py"


def assert_holds(store, written, turned=()):
    assert store.names == tuple(sorted(written))
    for name, frames in written.items():
        for view, frame in frames.items():
            expected = np.rot90(frame) if name in turned else frame
            np.testing.assert_array_equal(store.read(name, view), expected)
    assert not list(store.damaged_frames())


# DPDD

def test_the_official_lists():
    pairs = {split: official_pairs(split) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in pairs.items()} == {"train": 350, "val": 74, "test": 76}
    all_names = [name for names in pairs.values() for pair in names.items() for name in pair]
    assert len(set(all_names)) == 1000
    for split, names in pairs.items():
        assert list(names) == (LISTS / f"{split}.txt").read_text().split()
        assert sorted(names.values()) == list(names.values()) and list(names) == sorted(names)
    places = [line.split() for line in (LISTS / "test_location.txt").read_text().splitlines()]
    assert [name for name, _ in places] == list(pairs["test"])
    assert [p for _, p in places].count("indoor") == 37 and len(places) == 76


def test_dpdd_as_its_authors_lay_it_out(tmp_path):
    written = miniatures.dpdd(tmp_path / "dd_dp_dataset_canon", portrait=(1,))
    prepared = prepare("dpdd", tmp_path, tmp_path / "out")
    assert [p.split.name for p in prepared] == ["train", "val", "test"]
    for split in prepared:
        names = list(written[split.split.name])
        store = open_store(tmp_path / "out" / f"{split.split.name}.lmdb")
        assert_holds(store, written[split.split.name], turned=names[1:2])
        assert [store.scene(name).tags.get("rotated") for name in names[:2]] == [None, 90]
        facts = store.manifest.facts
        assert (facts["bit_depth"], facts["layout"], facts["disparity_axis"]) == (16, "original", "x")
        assert "1 of them portrait" in split.summary() and "official" in split.summary()
    frame = store.scene("1P0A0917").views["sharp"]
    assert frame.source == "dd_dp_dataset_canon/test_c/target/1P0A0916.png" and len(frame.source_sha256) == 64
    assert store.scene("1P0A0917").tags == {"place": "outdoor"}
    dataset = DualPixelDataset(store=str(tmp_path / "out" / "train.lmdb"), crop_size=16, augment="dp_safe")
    assert len(dataset) == 4 and dataset[0]["gt"].shape == (3, 16, 16)


def test_restormers_layouts(tmp_path):
    test = miniatures.restormer(tmp_path, "test")
    train = miniatures.restormer(tmp_path, "train", crops="_crops", names=["7-1", "7-2", "8-1"])
    train_store, test_store = (split.store for split in prepare("dpdd", tmp_path, tmp_path / "out"))
    assert_holds(train_store, train)
    assert_holds(test_store, test)
    assert train_store.manifest.facts["layout"] == "Restormer's patches"


def test_restormers_location_files_come_first(tmp_path):
    miniatures.restormer(tmp_path, "test", count=3)
    np.save(tmp_path / "test" / "DPDD" / "indoor_labels.npy", np.array([1, 3]))
    np.save(tmp_path / "test" / "DPDD" / "outdoor_labels.npy", np.array([2]))
    store = prepare("dpdd", tmp_path, tmp_path / "out")[0].store
    assert [store.scene(name).tags["place"] for name in store.names] == ["indoor", "outdoor", "indoor"]


def test_names_of_ones_own_are_paired_by_order(tmp_path):
    for number in range(2):
        for folder, view, names in [("l/source", "left", "ab"), ("r/source", "right", "ab"),
                                    ("c/source", "center", "ab"), ("c/target", "sharp", "xy")]:
            write_image(tmp_path / f"train_{folder}/{names[number]}.png", miniatures.frames(number)[view])
    prepared = prepare("dpdd", tmp_path, tmp_path / "out")[0]
    assert prepared.store.scene("b").views["sharp"].source == "train_c/target/y.png"
    assert "paired by sorted order" in prepared.summary() and "no val and no test split" in prepared.summary()


def break_dpdd(root, fault):
    """One fault; returns what the message must hold."""
    first, second = list(official_pairs("train").items())[:2]
    left, right = root / f"train_l/source/{second[0]}_L.png", root / f"train_r/source/{second[0]}_R.png"
    target = root / f"train_c/target/{second[1]}.png"
    if fault == "missing right view":
        right.unlink()
        return f"scene {second[0]}: no right image in {right.parent} goes with"
    if fault == "missing folder":
        shutil.rmtree(right.parent)
        return f"there is no folder {right.parent}"
    if fault == "empty folder":
        shutil.rmtree(right.parent)
        right.parent.mkdir()
        return f"{right.parent}: expected the right images"
    if fault == "8-bit file":
        write_image(left, miniatures.frames(1, dtype=np.uint8)["left"])
        return f"{left}: expected 16 bits a channel, the file has 8"
    if fault == "wrong size":
        write_image(target, miniatures.frames(1, (24, 30))["sharp"])
        return f"{target} is 24 x 30 pixels"
    if fault == "gray view":
        write_image(target, miniatures.frames(1)["sharp"][..., :1])
        return "of 1 channel,"
    if fault == "target of another scene":
        target.rename(target.with_name("1P0A0895.png"))
        return f"its sharp image {second[1]}.png is not in {target.parent}"
    if fault == "missing target":
        target.unlink()
        return f"its sharp image {second[1]}.png is not in"
    if fault == "truncated PNG":
        os.truncate(target, target.stat().st_size // 2)
        return f"{target}: the PNG file is cut off"
    if fault == "duplicate name":
        shutil.copy(left, left.with_name(f"{second[0]}_l.png"))
        return f"{second[0]}_L.png and {second[0]}_l.png are both the left image"
    if fault == "swapped folders":
        left.parent.rename(root / "other")
        right.parent.rename(left.parent)
        (root / "other").rename(right.parent)
        return "by its name a right image, in the folder of the left images (4 of 4 files there)"
    if fault == "one view twice":
        shutil.copy(left, right)
        return "are the same picture"
    if fault == "scene of another split":
        for path in root.glob(f"train_*/source/{second[0]}*"):
            path.rename(path.with_name(path.name.replace(second[0], "1P0A0894")))
        return "scene 1P0A0894 belongs to the official val split"
    if fault == "not an image":
        left.write_bytes(b"<html>")
        return f"{left}: not an image"
    if fault == "empty file":
        left.write_bytes(b"")
        return f"{left}: the file is empty"
    raise AssertionError(fault)


FAULTS = ["missing right view", "missing folder", "empty folder", "8-bit file", "wrong size", "gray view",
          "target of another scene", "missing target", "truncated PNG", "duplicate name", "swapped folders",
          "one view twice", "scene of another split", "not an image", "empty file"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_looks_finished(tmp_path, fault):
    written = miniatures.dpdd(tmp_path / "source", {"train": 4})
    shutil.copytree(tmp_path / "source", tmp_path / "whole")
    expected = break_dpdd(tmp_path / "source", fault)
    with pytest.raises(DataError) as error:
        prepare("dpdd", tmp_path / "source", tmp_path / "out")
    assert expected in str(error.value)
    assert not (tmp_path / "out" / "train.lmdb").exists()
    shutil.rmtree(tmp_path / "source")
    (tmp_path / "whole").rename(tmp_path / "source")
    assert_holds(prepare("dpdd", tmp_path / "source", tmp_path / "out")[0].store, written["train"])


def test_several_faults_are_reported_at_once(tmp_path):
    miniatures.dpdd(tmp_path / "source", {"train": 6})
    files = sorted((tmp_path / "source" / "train_c" / "source").iterdir())
    for path in files[1:4]:
        os.truncate(path, 100)
    with pytest.raises(DataError) as error:
        prepare("dpdd", tmp_path / "source", tmp_path / "out")
    assert all(str(path) in str(error.value) for path in files[1:4])
    assert "3 scenes of train cannot be used. 3 are stored and stay" in str(error.value)


def test_eight_bits_where_they_are_meant(tmp_path):
    written = miniatures.dpdd(tmp_path / "source", {"train": 2}, dtype=np.uint8)
    store = prepare("dpdd", tmp_path / "source", tmp_path / "out", bits=8)[0].store
    assert_holds(store, written["train"])
    assert store.manifest.facts["bit_depth"] == 8


def test_sixteen_bit_files_with_eight_bit_content_are_noted(tmp_path):
    miniatures.pairs(tmp_path / "source", dtype=np.uint8)
    for path in (tmp_path / "source").glob("*/*.png"):
        from k3dn_plugin.data.images import read_image
        write_image(path, read_image(path).astype(np.uint16) * 257)
    assert "8-bit content" in prepare("pairs", tmp_path / "source", tmp_path / "out")[0].summary()


# One's own pairs

@pytest.mark.parametrize("views", [("left", "right"), ("left", "right", "sharp"),
                                   ("left", "right", "center", "sharp")])
def test_own_pairs(tmp_path, views):
    written = miniatures.pairs(tmp_path / "source", views=views)
    prepared = prepare("pairs", tmp_path / "source", tmp_path / "out")[0]
    assert prepared.store.path == tmp_path / "out" / "all.lmdb"
    assert_holds(prepared.store, written)
    assert ("no sharp images" in prepared.summary()) == ("sharp" not in views)


def test_own_pairs_in_splits_with_view_endings_and_strange_files(tmp_path):
    for split in ("train", "val"):
        miniatures.pairs(tmp_path / split, views=("left", "right", "sharp"), dtype=np.uint8)
        for view, ending in (("left", "_L"), ("right", "-right"), ("sharp", "_gt")):
            for path in sorted((tmp_path / split / view).iterdir()):
                path.rename(path.with_stem(path.stem + ending))
            (tmp_path / split / view / "._one.png").write_bytes(b"what systems leave behind")
            (tmp_path / split / view / "Thumbs.db").write_bytes(b"")
    prepared = prepare("pairs", tmp_path, tmp_path / "out")
    assert [p.split.name for p in prepared] == ["train", "val"]
    assert prepared[0].store.names == ("one", "two") and prepared[0].store.manifest.facts["bit_depth"] == 8


def test_own_portrait_frames_are_turned_or_kept(tmp_path):
    for view, frame in miniatures.frames(0, (32, 24)).items():
        write_image(tmp_path / view / "a.png", frame)
    assert prepare("pairs", tmp_path, tmp_path / "1")[0].store.scene("a").size == (24, 32)
    assert prepare("pairs", tmp_path, tmp_path / "2", keep_portrait=True)[0].store.scene("a").size == (32, 24)


def test_files_of_two_depths(tmp_path):
    miniatures.pairs(tmp_path / "source")
    odd = tmp_path / "source" / "right" / "two.png"
    write_image(odd, miniatures.frames(1, dtype=np.uint8)["right"])
    with pytest.raises(DataError, match=f"{odd}: expected 16 bits a channel, the file has 8"):
        prepare("pairs", tmp_path / "source", tmp_path / "out")


# Doing it again

def test_a_finished_store_is_left_and_other_scenes_are_refused(tmp_path):
    miniatures.pairs(tmp_path / "source")
    first = prepare("pairs", tmp_path / "source", tmp_path / "out")[0]
    before = (tmp_path / "out" / "all.lmdb" / "data.mdb").stat().st_mtime_ns
    again = prepare("pairs", tmp_path / "source", tmp_path / "out")[0]
    assert again.was_there and again.store.hash == first.store.hash and "was ready" in again.summary()
    assert (tmp_path / "out" / "all.lmdb" / "data.mdb").stat().st_mtime_ns == before
    miniatures.pairs(tmp_path / "source", names=("one", "two", "three"))
    with pytest.raises(DataError, match="exists and holds other scenes"):
        prepare("pairs", tmp_path / "source", tmp_path / "out")


def test_scenes_that_an_interrupted_call_stored_are_not_read_again(tmp_path, monkeypatch):
    written = miniatures.dpdd(tmp_path / "source", {"train": 5})
    preparer = type(get_preparer("dpdd"))
    load, loaded = preparer.load, []

    def interrupted(self, scene, *arguments):
        if len(loaded) == 3:
            raise KeyboardInterrupt
        loaded.append(scene.name)
        return load(self, scene, *arguments)
    monkeypatch.setattr(preparer, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("dpdd", tmp_path / "source", tmp_path / "out")
    again = []
    monkeypatch.setattr(preparer, "load", lambda *a: again.append(a[1].name) or load(*a))
    store = prepare("dpdd", tmp_path / "source", tmp_path / "out")[0].store
    assert_holds(store, written["train"])
    assert 2 <= len(again) < 5 and again == sorted(written["train"])[-len(again):]


def test_an_interrupted_build_of_another_source_is_refused(tmp_path):
    miniatures.pairs(tmp_path / "first")
    os.truncate(tmp_path / "first" / "left" / "two.png", 50)
    with pytest.raises(DataError):
        prepare("pairs", tmp_path / "first", tmp_path / "out", bits=16)
    miniatures.pairs(tmp_path / "second", names=("other",))
    with pytest.raises(DataError, match="holds scene 'one', which is not in .*second"):
        prepare("pairs", tmp_path / "second", tmp_path / "out")


def test_a_full_disk(tmp_path, monkeypatch):
    written = miniatures.pairs(tmp_path / "source", names=("a", "b", "c"))
    from k3dn_plugin.data import StoreWriter
    commit = StoreWriter._commit

    def full(self, values):
        import lmdb

        from k3dn_plugin.data.store.writer import storage_errors
        if any(key.startswith(b"frame/b") for key in values):
            with storage_errors(self.partial):
                raise lmdb.DiskError("No space left on device")
        commit(self, values)
    monkeypatch.setattr(StoreWriter, "_commit", full)
    with pytest.raises(StorageError, match=r"could not write .*all\.lmdb\.partial.*Run the same command"):
        prepare("pairs", tmp_path / "source", tmp_path / "out")
    monkeypatch.setattr(StoreWriter, "_commit", commit)
    assert_holds(prepare("pairs", tmp_path / "source", tmp_path / "out")[0].store, written)


# The tool

def run_tool(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True,
                          timeout=60)


def test_the_tool_prepares_and_says_what_it_did(tmp_path):
    miniatures.dpdd(tmp_path / "source", {"test": 3})
    result = run_tool("dpdd", "--source", tmp_path / "source", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "3 scenes of center, left, right, sharp; 16 bits; 24 x 32" in result.stdout
    assert "incomplete: 3 of the 76 official test scenes" in result.stdout


def test_the_tool_prints_one_error(tmp_path):
    result = run_tool("dpdd", "--source", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"{tmp_path / 'nowhere'}: expected DPDD" in result.stderr
    assert "train,val,test}_l/source" in result.stderr
    result = run_tool("dpd", "--source", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 2 and "no data set is called 'dpd'. Nearest: " in result.stderr
    assert "'dpdd'" in result.stderr


def test_the_tool_killed_and_run_again(tmp_path):
    written = miniatures.dpdd(tmp_path / "source", {"train": 30})
    command = [sys.executable, str(TOOL), "dpdd", "--source", str(tmp_path / "source"),
               "--out", str(tmp_path / "out")]
    partial = tmp_path / "out" / "train.lmdb.partial" / "data.mdb"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 60_000):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run_tool(*command[2:]).returncode == 0
    assert_holds(open_store(tmp_path / "out" / "train.lmdb"), written["train"])
    assert sorted(os.listdir(tmp_path / "out")) == ["train.lmdb", "train_contact_sheet.png"]


@pytest.mark.parametrize("name", PREPARERS.names())
def test_every_preparer_describes_its_layout(name, tmp_path):
    preparer = get_preparer(name)
    assert preparer.name == name and preparer.title and "SOURCE" in preparer.tree
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="The layout is:"):
            prepare(name, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def twelve_bits(folder, views=("left", "right", "sharp")):
    for view in views:
        for path in sorted((folder / view).iterdir()):
            write_image(path, read_image(path) >> 4)


def test_numbers_of_fewer_bits_than_their_files(tmp_path):
    source = tmp_path / "mine"
    for view in ("left", "right", "sharp"):
        for number in range(3):
            frame = np.random.default_rng(number).integers(0, 65536, (40, 60, 3), np.uint16)
            write_image(source / view / f"{number}.png", np.roll(frame, {"left": 1, "right": -1, "sharp": 0}[view], 1))
    assert "bits?" not in prepare("pairs", source, tmp_path / "whole")[0].summary()
    twelve_bits(source)
    plain = prepare("pairs", source, tmp_path / "plain")[0]
    assert "no number of these 16-bit files exceeds 4095" in plain.summary() and "--full-scale 4095" in plain.summary()
    scaled = prepare("pairs", source, tmp_path / "scaled", full_scale=4095)[0]
    facts = scaled.store.manifest.facts
    assert (facts["bit_depth"], facts["full_scale"]) == (12, 4095) and "bits?" not in scaled.summary()
    sample = DualPixelDataset(store=str(tmp_path / "scaled" / "all.lmdb"))[0]
    assert 0.95 < float(sample["lq"].max()) <= 1
    with pytest.raises(DataError, match="holds the number .*, above --full-scale 1023"):
        prepare("pairs", source, tmp_path / "wrong", full_scale=1023)
    with pytest.raises(DataError, match="was made with the full scale 4095, not 16383"):
        prepare("pairs", source, tmp_path / "scaled", full_scale=16383)
    for wrong in (0, -1, 255, 70000):
        with pytest.raises(OptionError, match=f"--full-scale {wrong}"):
            prepare("pairs", source, tmp_path / "never", full_scale=wrong)
    assert not (tmp_path / "never").exists()


def test_many_bad_scenes_do_not_stop_the_others(tmp_path):
    source = tmp_path / "mine"
    for view in ("left", "right"):
        for number in range(12):
            write_image(source / view / f"{number:02d}.png", np.full((20, 30, 3), number + (view == "left"), np.uint8))
    for number in range(7):
        (source / "left" / f"{number:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"00.png(.|\n)*7 scenes of all cannot be used .the first 5 are shown.. 5 are"):
        prepare("pairs", source, tmp_path / "out")


def test_a_folder_is_prepared_by_one_process(tmp_path):
    source = tmp_path / "mine"
    for view in ("left", "right"):
        write_image(source / view / "a.png", np.full((20, 30, 3), view == "left", np.uint8))
    with FolderLock(tmp_path / "out", "preparing dpdd"), pytest.raises(StorageError, match="in use.*preparing dpdd"):
        prepare("pairs", source, tmp_path / "out")
    prepare("pairs", source, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"all.lmdb", "all_contact_sheet.png"}


def test_places_that_cannot_be_read_or_written_are_one_error(tmp_path):
    source = tmp_path / "mine"
    for view in ("left", "right"):
        write_image(source / view / "a.png", np.full((20, 30, 3), view == "left", np.uint8))
    (tmp_path / "file").write_text("x")
    for place in ("a\0b", "x" * 300, tmp_path / "file"):
        with pytest.raises(DataError):
            prepare("pairs", place, tmp_path / "out")
    for place in ("a\0b", tmp_path / ("x" * 300), tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises((DataError, StorageError)):
            prepare("pairs", source, place)


@pytest.mark.parametrize("text", [b"one\n", b"one two three\n", b"\xff\xfe\n", b"<html> is not a list\n"])
def test_a_damaged_official_list_is_one_error(tmp_path, monkeypatch, text):
    monkeypatch.setattr("k3dn_plugin.data.preparation.dpdd.LISTS", tmp_path)
    (tmp_path / "train_pairs.txt").write_bytes(text)
    with pytest.raises(DataError, match="train_pairs.txt: expected a list of two words a line"):
        official_pairs("train")
