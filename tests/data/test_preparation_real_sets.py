"""The sets of real photographs: what is stored against independent arithmetic, and one fault at a time."""
import os
import shutil

import cv2
import miniatures
import numpy as np
import pytest

from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.preparation import prepare
from k3dn_plugin.data.truth_check import TruthCheck
from k3dn_plugin.errors import DataError, StorageError

# By layout: a left view, a right view, a truth, and the truth of another scene.
PLACES = {
    "pixel4": ("002_left.png", "002_right.png", "gt_all_in_focus_im/002_gt.png", "gt_all_in_focus_im/001_gt.png"),
    "dpd_disp": ("006_L.jpg", "006_R.jpg", "006_D.TIF", "005_D.TIF"),
    "sdirt": ("1500/f4/l.png", "1500/f4/r.png", "1500/f20/l.png", "0600/f20/l.png"),
    "realdof": ("source/02.png", None, "target/02.png", "target/01.png"),
    "lfdof": ("train_data/input/IMG_1278/IMG_1278_ap1_00.png", None, "train_data/ground_truth/IMG_1278.png",
              "train_data/ground_truth/IMG_1275.png"),
    "cuhk": ("out_of_focus0000.jpg", None, None, None),
}
VIEWS = dict(zip(("left", "right", "truth"), range(3)))


def make(name, root):
    return miniatures.pixel4_small(root) if name == "pixel4" else miniatures.make(name, root)


def rewrite(path, change):
    frame = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    suffix = ".png" if frame.dtype == np.uint16 else path.suffix.lower()
    path.write_bytes(cv2.imencode(suffix, frame)[1].tobytes())


def other_depth(frame):
    return (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame.astype(np.uint16) * 257


def break_file(path, fault):
    """What the message must hold."""
    if fault == "missing":
        path.unlink()
        return "no |found none"
    if fault == "other depth":
        rewrite(path, other_depth)
        return f"{path}: expected .* the file has"
    if fault == "wrong size":
        rewrite(path, lambda frame: frame[:-6, :-6])
        return f"{path}"
    if fault == "truncated":
        os.truncate(path, path.stat().st_size // 2)
        return f"{path}: .*(cut off|damaged)"
    if fault == "duplicate name":
        copy = path.with_suffix(".jpeg" if path.suffix == ".jpg" else ".tiff")
        shutil.copy(path, copy)
        return f"{copy.name}.*keep one"
    raise AssertionError(fault)


CASES = [(name, view, fault) for name, places in PLACES.items() for view, number in VIEWS.items()
         for fault in ("missing", "other depth", "wrong size", "truncated", "duplicate name") if places[number]
         # Inputs of LFDOF are counted, not listed; CUHK's are of any size and number.
         and (name, view, fault) not in (("lfdof", "left", "missing"), ("cuhk", "left", "missing"),
                                         ("cuhk", "left", "wrong size"), ("cuhk", "left", "other depth"))]


@pytest.mark.parametrize("name, view, fault", CASES)
def test_a_fault_is_named_and_fixed(name, view, fault, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    make(name, source)
    shutil.copytree(source, tmp_path / "whole")
    expected = break_file(source / PLACES[name][VIEWS[view]], fault)
    with pytest.raises(DataError, match=expected):
        prepare(name, source, out)
    split = "train" if name == "lfdof" else "test"
    assert not (out / f"{split}.lmdb").exists()
    shutil.rmtree(source)
    (tmp_path / "whole").rename(source)
    for prepared in prepare(name, source, out):
        assert not list(prepared.store.damaged_frames())


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("name", ["pixel4", "sdirt", "realdof", "lfdof"])
def test_a_truth_of_another_scene(name, exchanged, tmp_path):
    make(name, tmp_path / "source")
    one, other = (tmp_path / "source" / place for place in PLACES[name][2:])
    content = one.read_bytes()
    shutil.copy(other, one)
    if exchanged:
        other.write_bytes(content)
    with pytest.raises(DataError, match=f"{one}.* (shows scene|show different scenes)"):
        prepare(name, tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.lmdb"))


def test_a_right_view_of_another_scene(tmp_path):
    make("pixel4", tmp_path)
    shutil.copy(tmp_path / "001_right.png", tmp_path / "002_right.png")
    with pytest.raises(DataError, match="scene 002: its right view .*002_right.png shows scene 001"):
        prepare("pixel4", tmp_path, tmp_path / "out")


def test_a_depth_map_twice(tmp_path):
    make("dpd_disp", tmp_path)
    shutil.copy(tmp_path / "005_D.TIF", tmp_path / "006_D.TIF")
    with pytest.raises(DataError, match="scene 006: its depth map .*006_D.TIF is that of scene 005"):
        prepare("dpd_disp", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", sorted(PLACES))
def test_a_full_disk(name, tmp_path, monkeypatch):
    import lmdb

    from k3dn_plugin.data import StoreWriter
    from k3dn_plugin.data.store.writer import storage_errors
    make(name, tmp_path / "source")
    commit, calls = StoreWriter._commit, []

    def full(self, values):
        calls.append(values)
        if len(calls) == 3:
            with storage_errors(self.partial):
                raise lmdb.DiskError("No space left on device")
        commit(self, values)
    monkeypatch.setattr(StoreWriter, "_commit", full)
    with pytest.raises(StorageError, match="Run the same command again"):
        prepare(name, tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.lmdb")) and not list((tmp_path / "out").glob("*.png"))
    for prepared in prepare(name, tmp_path / "source", tmp_path / "out"):
        assert not list(prepared.store.damaged_frames())


def test_pixel4_by_independent_arithmetic(tmp_path):
    written = make("pixel4", tmp_path / "source")
    prepared = prepare("pixel4", tmp_path / "source", tmp_path / "out")[0]
    dataset = DualPixelDataset(store=str(prepared.store.path))
    sheets = [cv2.imread(str(tmp_path / f"source/calibration/white_sheet_{view}.png"), -1).astype(float) - 1024
              for view in ("left", "right")]
    # The box of 101 by cumulative sums over the mirrored sheet.
    padded = [np.pad(sheet, 50, mode="symmetric") for sheet in sheets]
    sums = [np.pad(sheet, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for sheet in padded]
    boxes = [(s[101:, 101:] - s[:-101, 101:] - s[101:, :-101] + s[:-101, :-101]) / 101 ** 2 for s in sums]
    crop = np.s_[12:60, 16:80]
    for number, (_, (left, right, truth)) in enumerate(sorted(written.items())):
        left, right = (np.maximum(view.astype(float) - 1024, 0)[crop] / 16383 for view in (left, right))
        right = right * (boxes[0] / boxes[1])[crop]
        sample = dataset[number]
        np.testing.assert_allclose(sample["lq"][2], left, atol=1e-6)
        np.testing.assert_allclose(sample["lq"][3], right, atol=1e-6)
        np.testing.assert_allclose(sample["center"][1], (left + right) / 2, atol=1e-6)
        np.testing.assert_allclose(sample["gt"][0], truth / 65535, atol=1e-6)
        np.testing.assert_array_equal(sample["defocus"][0], truth >> 8)
    facts = prepared.store.manifest.facts
    assert (facts["bit_depth"], facts["linear"], facts["official_scenes"], facts["border_ring"]) == (14, True, 17, 1)
    assert len(facts["white_sheet_left_sha256"]) == 64
    assert "incomplete: 3 of the 17 official scenes; missing: 003, 004" in prepared.summary()
    assert "not of the published 1008 x 1344" in prepared.summary()


def test_pixel4_refuses_another_depth_by_option(tmp_path):
    make("pixel4", tmp_path)
    with pytest.raises(DataError, match="leave --bits out"):
        prepare("pixel4", tmp_path, tmp_path / "out", bits=8)


def test_names_that_are_not_official_are_reported(tmp_path):
    miniatures.realdof(tmp_path, names=("01", "99"))
    summary = prepare("realdof", tmp_path, tmp_path / "out")[0].summary()
    assert "incomplete: 1 of the 50 official scenes; missing: 02, 03" in summary and "and 29 more" in summary
    assert "not among the 50 official scenes: 99" in summary


def test_the_wall_is_scored_against_the_exact_mean(tmp_path):
    written = miniatures.sdirt(tmp_path / "flat" / "001")
    store = prepare("sdirt", tmp_path, tmp_path / "out")[0].store
    assert store.names == ("flat/001/0600", "flat/001/1500")
    assert store.scene("flat/001/0600").tags["distance_mm"] == 600
    sample = DualPixelDataset(store=str(store.path))[1]
    views = written["1500"]
    mean = (views["sharp"].astype(float) + views["sharp_right"]) / 2 / 255
    np.testing.assert_allclose(sample["gt"], mean.transpose(2, 0, 1), atol=1e-7)


def test_views_at_f4_in_the_place_of_those_at_f20(tmp_path):
    miniatures.sdirt(tmp_path)
    shutil.copy(tmp_path / "0600/f4/l.png", tmp_path / "0600/f20/l.png")
    with pytest.raises(DataError, match="expected those at F/20"):
        prepare("sdirt", tmp_path, tmp_path / "out")


def test_depth_turns_with_its_portrait_views(tmp_path):
    views = miniatures.frames(0, (32, 24), np.uint8)
    for ending, view in (("L", "left"), ("R", "right"), ("B", "center")):
        write_image(tmp_path / f"001_{ending}.png", views[view])
    write_image(tmp_path / "001_D.tif", views["sharp"][..., 0])
    store = prepare("dpd_disp", tmp_path, tmp_path / "out")[0].store
    assert store.scene("001").tags == {"rotated": 90} and store.scene("001").size == (24, 32)
    depth = np.rot90(views["sharp"][..., 0]).astype(np.float32)
    depth[depth == 0] = np.nan
    np.testing.assert_array_equal(store.read("001", "depth"), depth)
    assert "larger being nearer" in store.manifest.facts["depth_unit"]


def test_lfdof_records_settings_and_misses_inputs(tmp_path):
    miniatures.lfdof(tmp_path / "source")
    train, test = prepare("lfdof", tmp_path / "source", tmp_path / "out")
    assert train.store.scene("IMG_1275_ap2_00").tags == {"scene": "IMG_1275", "aperture": 2, "focus": 0}
    assert test.store.manifest.facts["official_images"] == 725
    shutil.rmtree(tmp_path / "source/train_data/input/IMG_1278")
    with pytest.raises(DataError, match="IMG_1278.png has no defocused images"):
        prepare("lfdof", tmp_path / "source", tmp_path / "again")


def test_a_truth_that_is_unlike_anything_is_reported(tmp_path):
    miniatures.realdof(tmp_path)
    write_image(tmp_path / "target/02.png", miniatures.frames(9, dtype=np.uint8)["sharp"])
    prepared = prepare("realdof", tmp_path, tmp_path / "out")[0]
    assert "1 sharp images are unlike their views, the most 02" in prepared.summary()


def test_frames_of_a_video_are_not_taken_for_one_another():
    check, draw = TruthCheck(), np.random.default_rng(0)
    scene = draw.uniform(0, 255, (48, 64, 3)).astype(np.float32)
    for number in range(4):
        sharp = scene + draw.normal(0, 3, scene.shape).astype(np.float32)
        blurred = cv2.blur(sharp, (5, 5))
        check.add(str(number), {"left": np.roll(blurred, 1, 1), "right": blurred, "sharp": sharp})
    assert not check.misplaced() and not check.doubtful()


def test_a_contact_sheet_that_was_not_written_is_made_up_for(tmp_path):
    miniatures.realdof(tmp_path / "source")
    prepare("realdof", tmp_path / "source", tmp_path / "out")
    (tmp_path / "out/test_contact_sheet.png").unlink()
    assert prepare("realdof", tmp_path / "source", tmp_path / "out")[0].was_there
    assert (tmp_path / "out/test_contact_sheet.png").is_file()
