"""Every published layout: what is stored is what the files hold, and each fault is found and named."""
import shutil

import cv2
import miniatures
import numpy as np
import pytest
import torch

from k3dn_plugin.data import open_store
from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.depth_files import read_pfm
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.data.preparation import prepare
from k3dn_plugin.data.preparation.base import get_preparer
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import PREPARERS


@pytest.mark.parametrize("name", PREPARERS.names())
def test_every_preparer_makes_the_same_samples(name, tmp_path):
    miniatures.make(name, tmp_path / "source")
    prepared = prepare(name, tmp_path / "source", tmp_path / "out")
    assert prepared
    for split in prepared:
        dataset = DualPixelDataset(store=str(split.store.path), truth=miniatures.has_truth(name))
        sample = dataset[0]
        height, width = sample["lq"].shape[1:]
        assert sample["lq"].shape == (6, height, width) and sample["center"].shape == (3, height, width)
        assert all(sample[key].dtype == torch.float32 for key in ("lq", "center"))
        assert ("gt" in sample) == miniatures.has_truth(name)
        assert 0 <= float(sample["lq"].min()) and float(sample["lq"].max()) <= 1.4
        card = dataset.card
        assert card.name == name and card.source and card.bit_depth in (8, 14, 16)
        assert set(card.maps) <= {"disparity", "defocus", "depth"} and all(card.maps.values())
        assert (split.store.path.parent / f"{split.split.name}_contact_sheet.png").is_file()
        assert "scenes of" in split.summary()
    again = prepare(name, tmp_path / "source", tmp_path / "out")
    assert all(split.was_there for split in again)


@pytest.mark.parametrize("name", PREPARERS.names())
def test_every_preparer_names_what_it_expects(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected .*here; it holds nothing"):
        prepare(name, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def files_of(root):
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".tif", ".pgm", ".cr2", ".dng"))


def files_that_are_scenes(name, source):
    """Files of single images without a truth: without one there is one scene less, which only its maker can miss."""
    return {path for split in get_preparer(name).find(source) for scene in split.scenes
            for path in scene.files.values() if len(set(scene.files.values())) == 1}


@pytest.mark.parametrize("name", PREPARERS.names())
def test_every_preparer_misses_any_file_that_is_gone(name, tmp_path):
    source = tmp_path / "source"
    miniatures.make(name, source)
    chosen = sorted(set(files_of(source)) - files_that_are_scenes(name, source))
    for gone in {chosen[at] for at in (0, len(chosen) // 2, -1)} if chosen else ():
        kept = gone.read_bytes()
        gone.unlink()
        if name == "lfdof" and gone.parent.parent.name == "input":
            gone.write_bytes(kept)
            continue  # one of several inputs may be missing: the summary says how many there are
        with pytest.raises(DataError):
            prepare(name, source, tmp_path / "out")
        gone.write_bytes(kept)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


@pytest.mark.parametrize("name", PREPARERS.names())
def test_every_preparer_refuses_a_file_that_is_cut_off(name, tmp_path):
    source = tmp_path / "source"
    miniatures.make(name, source)
    victim = files_of(source)[0]
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{victim.name}.*(cut off|damaged)"):
        prepare(name, source, tmp_path / "out")
    # The splits before it are whole and stay; that of the damaged file has not got its name.
    assert len(list((tmp_path / "out").glob("*.lmdb"))) < len(get_preparer(name).find(source))


def test_pixel4_is_corrected_as_published(tmp_path):
    written = miniatures.pixel4(tmp_path / "source")
    store = prepare("pixel4", tmp_path / "source", tmp_path / "out")[0].store
    left, right, truth = written["002"]
    assert np.array_equal(store.read("002", "left")[..., 0], left[252:1260, 336:1680])
    assert np.array_equal(store.read("002", "sharp")[..., 0], truth)
    sheets = [read_image(tmp_path / "source/calibration" / f"white_sheet_{view}.png", gray=True)[..., 0] - 1024.0
              for view in ("left", "right")]
    row, column = 400, 700  # of the crop
    boxes = [sheet[252 + row - 50:252 + row + 51, 336 + column - 50:336 + column + 51].mean() for sheet in sheets]
    wanted = max(float(right[252 + row, 336 + column]) - 1024, 0) * boxes[0] / boxes[1]
    assert store.read("002", "right")[row, column, 0] == pytest.approx(wanted, rel=1e-5)
    sample = DualPixelDataset(store=str(store.path))[1]
    assert float(sample["lq"][0, row, column]) == pytest.approx(
        max(float(left[252 + row, 336 + column]) - 1024, 0) / 16383, rel=1e-5)
    assert float(sample["gt"][1, row, column]) == pytest.approx(truth[row, column] / 65535, rel=1e-6)
    card = DualPixelDataset(store=str(store.path)).card
    assert card.linear and card.bit_depth == 14 and card.facts["aligned_with"] == "left"


@pytest.mark.parametrize("fault, message", [
    (lambda root: (root / "calibration/white_sheet_right.png").unlink(), "white_sheet_right.png: the vignetting"),
    (lambda root: write_image(root / "001_left.png", np.full((1512, 2016), 7, np.uint8)), "expected 16 bits"),
    (lambda root: write_image(root / "gt_all_in_focus_im/001_gt.png", np.ones((1008, 1340), np.uint16)),
     "expected 1008 x 1344"),
    (lambda root: shutil.copy(root / "001_left.png", root / "001_right.png"), "are the same picture"),
])
def test_pixel4_faults(fault, message, tmp_path):
    miniatures.pixel4(tmp_path / "source")
    fault(tmp_path / "source")
    with pytest.raises(DataError, match=message):
        prepare("pixel4", tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.lmdb"))


def test_depth_of_dpd_disp_is_unknown_where_it_is_zero(tmp_path):
    written = miniatures.dpd_disp(tmp_path / "source")
    store = prepare("dpd_disp", tmp_path / "source", tmp_path / "out")[0].store
    depth, stored = written["005"]["sharp"][..., 0], store.read("005", "depth")
    assert np.isnan(stored[:3]).all() and np.array_equal(stored[3:][depth[3:] > 0], depth[3:][depth[3:] > 0])
    assert not store.has("005", "sharp")


def test_one_image_is_stored_once(tmp_path):
    miniatures.lfdof(tmp_path / "source")
    train, test = (split.store for split in prepare("lfdof", tmp_path / "source", tmp_path / "out"))
    assert len(train) == 4 and len(test) == 2
    scene = train.scene("IMG_1275_ap1_00")
    assert scene.views["left"].stored_as is None and scene.views["right"].stored_as == "frame/IMG_1275_ap1_00/left"
    other = train.scene("IMG_1275_ap2_00")
    assert other.views["sharp"].stored_as == "frame/IMG_1275_ap1_00/sharp"
    assert np.array_equal(train.read(other.name, "sharp"), train.read(scene.name, "sharp"))
    assert not list(train.damaged_frames())
    assert train.manifest.facts["single_image"]


def test_lfdof_is_split_by_scene(tmp_path):
    miniatures.lfdof(tmp_path / "source")
    for place in ("input/IMG_2162", "ground_truth/IMG_2162.png"):
        here, there = (tmp_path / "source" / f"{split}_data" / place for split in ("test", "train"))
        shutil.copytree(here, there) if here.is_dir() else shutil.copy(here, there)
    with pytest.raises(DataError, match="IMG_2162 is in the training and in the test data"):
        prepare("lfdof", tmp_path / "source", tmp_path / "out")


def test_lfdof_images_in_another_scenes_folder(tmp_path):
    miniatures.lfdof(tmp_path / "source")
    folder = tmp_path / "source/train_data/input"
    shutil.move(folder / "IMG_1275/IMG_1275_ap1_00.png", folder / "IMG_1278/IMG_1275_ap1_00.png")
    with pytest.raises(DataError, match="by its name not an image of scene IMG_1278"):
        prepare("lfdof", tmp_path / "source", tmp_path / "out")


def test_dddsyn_has_signed_disparity_and_both_test_settings(tmp_path):
    miniatures.dddsyn(tmp_path / "source")
    train, test = (split.store for split in prepare("dddsyn", tmp_path / "source", tmp_path / "out"))
    assert train.names == ("training/0001", "training/0002")
    assert test.names == ("testing/6001", "testing1/6001")
    assert np.array_equal(train.read("training/0001", "disparity").ravel(), np.arange(24 * 32, dtype=np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_files(order, tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    miniatures.write_pfm(tmp_path / "a.pfm", values, order)
    assert np.array_equal(read_pfm(tmp_path / "a.pfm"), values)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.pfm"), cv2.IMREAD_UNCHANGED), values)
    data = (tmp_path / "a.pfm").read_bytes()
    for broken, message in ((data[:-4], "cut off"), (b"PF" + data[2:], "one channel"), (b"hello", "expected a PFM")):
        (tmp_path / "b.pfm").write_bytes(broken)
        with pytest.raises(DataError, match=message):
            read_pfm(tmp_path / "b.pfm")


def test_rdpd_keeps_sequences_in_order(tmp_path):
    miniatures.rdpd(tmp_path / "source")
    train, _ = (split.store for split in prepare("rdpd", tmp_path / "source", tmp_path / "out"))
    assert train.names[:3] == ("seq_001/000000", "seq_001/000001", "seq_001/000002")
    assert [train.scene(name).tags["frame"] for name in train.names[:3]] == [0, 1, 2]
    shutil.rmtree(tmp_path / "source/train_r/source/seq_002")
    with pytest.raises(DataError, match="scene seq_002: no right image"):
        prepare("rdpd", tmp_path / "source", tmp_path / "again")


def test_frames_of_cuhk_are_not_turned(tmp_path):
    miniatures.cuhk(tmp_path / "source")
    store = prepare("cuhk", tmp_path / "source", tmp_path / "out")[0].store
    assert {scene.size for scene in store.manifest.scenes.values()} == {(24, 32), (32, 24)}
    assert open_store(store.path).manifest.facts["single_image"]


@pytest.mark.parametrize("name, files, scene", [
    ("dpdd", "test_c/target/*.png", None), ("pairs", "sharp/*.png", "one"), ("realdof", "target/*.png", "01"),
    ("rdpd", "train_c/target/seq_001/*.png", "seq_001/000000"), ("dddsyn", "NYU/training/gt/*.png", "training/0001")])
def test_a_truth_of_another_scene_is_found(name, files, scene, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    miniatures.make(name, source)
    first, second, *_ = sorted(source.glob(files))
    own = first.read_bytes()
    shutil.copy(second, first)
    with pytest.raises(DataError, match=f"scene .*: its sharp image .*{first.name} shows scene") as error:
        prepare(name, source, out)
    assert scene is None or f"scene {scene}: its sharp image" in str(error.value)
    first.write_bytes(own)
    prepared = prepare(name, source, out)  # what was stored is kept, the scene in question read again
    for split in prepared:
        assert not list(split.store.damaged_frames())
    repaired = next(s for s in prepared if first.name in str([v.source for r in s.store.manifest.scenes.values()
                                                            for v in r.views.values()]))
    record = next(r for r in repaired.store.manifest.scenes.values()
                  if r.views["sharp"].source and (source / r.views["sharp"].source) == first)
    assert np.array_equal(repaired.store.read(record.name, "sharp"), read_image(first, gray=True))


def test_other_sizes_than_the_published_are_reported(tmp_path):
    miniatures.dddsyn(tmp_path / "source")
    summary = prepare("dddsyn", tmp_path / "source", tmp_path / "out")[0].summary()
    assert "2 scenes are not of the published 480 x 640 (the first: training/0001)" in summary
