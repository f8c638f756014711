"""What is shown of a photograph: from dropped files of every kind to the result, its map and its file."""
import numpy as np
import pytest
import raw_files
import torch
from PIL import Image
from tiny_evaluation_parts import EvaluationConv, EvaluationIdentity

from k3dn_plugin.analysis.photograph import (
    PhotographSettings,
    read_photograph,
    restore_photograph,
    without_folder,
)
from k3dn_plugin.archs.k3dn_arch import K3DN
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.errors import DataError, SizeError
from k3dn_plugin.zoo.load import load_restorer


def view(seed, size=(70, 90), channels=3):
    shape = (*size, channels) if channels == 3 else size
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


@pytest.fixture
def dropped(tmp_path):
    """Writes views under names of one's choice into the folder of dropped files, and returns the files."""
    def write(*names, **more):
        for seed, name in enumerate(names):
            write_image(tmp_path / "views" / name, view(seed, **more))
        return [tmp_path / "views" / name for name in names]
    return write


@pytest.fixture
def identity():
    return load_restorer(EvaluationIdentity(), device="cpu")


@pytest.mark.parametrize("names, order", [
    (("a_R.png", "a_L.png"), (1, 0)), (("one.png", "two.png"), (0, 1)), (("b.tif", "a.tif"), (1, 0)),
    (("x_left.png", "x_center.png", "x_right.png"), (0, 2)), (("right.png", "left.png"), (1, 0)),
    (("right.png", "Left.png", "center.png"), (1, 0)), (("1_B.png", "1_R.png", "1_L.png"), (2, 1)),
    (("shot_b.png", "shot_a.png"), (1, 0))])
def test_views_are_told_by_their_names_or_their_order(names, order, dropped, tmp_path):
    pair, name, said = read_photograph(dropped(*names), tmp_path)
    expected = np.concatenate([view(seed) for seed in order], -1).transpose(2, 0, 1) / np.float32(65535)
    assert np.abs(pair.lq[0].numpy() - expected).max() < 1e-6
    assert f"left: {names[order[0]]}, right: {names[order[1]]}" in said
    assert (pair.center is not None) == (len(names) == 3)
    swapped, _, _ = read_photograph([tmp_path / "views" / n for n in names], tmp_path, swap=True)
    assert torch.equal(swapped.lq[:, :3], pair.lq[:, 3:]) and torch.equal(swapped.lq[:, 3:], pair.lq[:, :3])


@pytest.mark.parametrize("names, words", [
    ((), "nothing to restore: drop the left and the right view"),
    (("a.png",), "a.png: one file, and no raw file that holds both views"),
    (("a.png", "b.png", "c.png"), "found a.png, b.png, c.png: expected names that end in _L, _R and _C"),
    (("shot_L.png", "shot.png"), "found shot_L.png, shot.png: expected names that end in _L and _R"),
    (("shot_C.png", "shot_L.png"), "shot_C.png, shot_L.png: .* rename them"),
    (("a_L.png", "b_L.png"), "a_L.png, b_L.png: expected"), (("left.png", "x.png"), "left.png, x.png: expected"),
    (("x_gt.png", "x.png"), "x_gt.png, x.png: expected"),
    (("a.DNG", "b.DNG"), "a.DNG, b.DNG: expected one raw file at a time, without others"),
    (("a.CR2", "a.png"), "a.CR2, a.png: expected one raw file"),
    (("a_lt.png", "a_rt.png", "b_lb.png", "b_rb.png"), "a_lb.png, a_rb.png are not beside it"),
    (tuple(f"{n}.png" for n in range(5)), "found 5 files")])
def test_what_is_no_photograph(names, words, dropped, tmp_path):
    raw = [tmp_path / "views" / name for name in names if name.endswith(("DNG", "CR2"))]
    files = [*raw, *dropped(*(name for name in names if tmp_path / "views" / name not in raw))]
    with pytest.raises(DataError, match=words):
        read_photograph(files, tmp_path)


def test_the_result_is_whole_and_has_16_bits(dropped, tmp_path, identity):
    calls = []
    found = restore_photograph(dropped("p_L.png", "p_R.png"), identity, tmp_path,
                               progress=lambda done, total: calls.append((done, total)))
    assert found.file == tmp_path / "p_restored.png" and calls == [(1, 1)]
    mean = (view(0).astype(float) + view(1)) / 2
    assert np.abs(read_image(found.file, bits=16) - mean).max() <= 1
    assert found.before.shape == found.after.shape == (70, 90, 3)
    assert np.abs(found.before.astype(int) - found.after).max() <= 1
    assert "90 x 70 pixels, 16 bit" in found.facts and "data:image" in found.page.read_text()


def test_what_looks_wrong_and_how_much_is_restored_is_said(dropped, tmp_path, identity):
    files = dropped("p_L.png", "p_R.png", size=(90, 70))
    found = restore_photograph(files, identity, tmp_path, PhotographSettings(strength=0.5, with_map=False))
    assert "50% restored" in found.facts and "50% restored" in found.page.read_text(encoding="utf-8")
    note, = found.notes
    assert note.startswith("p_L.png and p_R.png: higher than wide") and "--disparity-axis y" in note
    assert restore_photograph(files, identity, tmp_path, PhotographSettings(
        disparity_axis="y", with_map=False)).notes == ()
    assert restore_photograph(files, identity, tmp_path).notes[1:] == ("too little texture to measure the disparity",)


@pytest.mark.parametrize("error, words", [
    (SizeError("too small"), "failed (too small)"), (MemoryError(), "failed (MemoryError)"),
    (RuntimeError("DefaultCPUAllocator: not enough memory"), "not enough memory")])
def test_a_map_that_fails_leaves_the_picture(error, words, dropped, tmp_path, identity, monkeypatch):
    def fail(*arguments):
        raise error
    monkeypatch.setattr("k3dn_plugin.analysis.photograph.disparity_picture", fail)
    found = restore_photograph(dropped("p_L.png", "p_R.png"), identity, tmp_path)
    assert found.map is None and words in found.notes[-1] and found.file.is_file()


@pytest.mark.parametrize("axis, left", [(None, ("lt", "lb")), ("x", ("lt", "lb")), ("y", ("lt", "rt"))])
def test_of_a_quad_pixel_set_the_axis_chooses_the_pair(axis, left, dropped, tmp_path):
    corners = ("lt", "rt", "lb", "rb")
    pair, name, _ = read_photograph(dropped(*(f"s_{corner}.png" for corner in corners)), tmp_path, axis=axis)
    mean = np.mean([view(corners.index(corner)) for corner in left], 0).transpose(2, 0, 1) / 65535
    assert name == "s" and pair.disparity_axis == (axis or "x")
    assert np.abs(pair.lq[0, :3].numpy() - mean).max() < 2 / 65535


def test_strength_and_gray(dropped, tmp_path):
    torch.manual_seed(0)
    loaded = load_restorer(EvaluationConv(), device="cpu", tile=48)
    files = dropped("p_L.png", "p_R.png", channels=1)
    found = restore_photograph(files, loaded, tmp_path, PhotographSettings(strength=0, with_map=False))
    assert np.array_equal(found.before, found.after) and found.map is None and "tiles of" in found.facts
    found = restore_photograph(files, loaded, tmp_path, PhotographSettings(with_map=False))
    assert not np.array_equal(found.before, found.after)
    assert np.ptp(found.after, axis=-1).max() == 0 and read_image(found.file, gray=True).shape[2] == 1


@pytest.mark.parametrize("network", [K3DN, EvaluationConv])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_there_is_a_map_of_every_restorer(network, axis, dropped, tmp_path):
    loaded = load_restorer(network(**getattr(network, "tiny_arguments", {})), device="cpu")
    files = dropped("p_L.png", "p_R.png", size=(130, 200))
    write_image(files[1], np.roll(view(0, (130, 200)), 3, 1))
    found = restore_photograph(files, loaded, tmp_path, PhotographSettings(disparity_axis=axis))
    assert found.map.shape == (130, 200, 3) and found.map.dtype == np.uint8
    assert ("as the network sees it" in found.map_title) == (network is K3DN)


def test_the_measured_map_has_the_sign_of_the_shift(dropped, tmp_path, identity):
    files = dropped("p_L.png", "p_R.png", size=(128, 192))
    for shift, color in ((4, "red"), (-4, "blue")):
        write_image(files[1], np.roll(view(0, (128, 192)), shift, 1))
        red, _, blue = restore_photograph(files, identity, tmp_path).map[:64, 64:128].reshape(-1, 3).mean(0)
        assert (red > blue) == (color == "red") and abs(red - blue) > 50


def test_pictures_stand_upright(tmp_path, identity):
    (tmp_path / "views").mkdir()
    exif = Image.Exif()
    exif[0x112] = 6
    for seed, name in enumerate("LR"):
        Image.fromarray((view(seed) >> 8).astype(np.uint8)).save(tmp_path / "views" / f"p_{name}.png", exif=exif)
    found = restore_photograph(sorted((tmp_path / "views").iterdir()), identity, tmp_path)
    assert found.before.shape == found.after.shape == found.map.shape == (90, 70, 3)
    assert read_image(found.file).shape == (70, 90, 3)


def test_a_raw_file_and_a_pair_of_the_capture_app(tmp_path, identity):
    (tmp_path / "views").mkdir()
    frames = raw_files.dual_pixel_frames(8, (32, 48))
    for side, frame in frames.items():
        if side != "sum":
            raw_files.write_pgm(tmp_path / "views" / f"scene_{side}.pgm", frame * 4)
    found = restore_photograph(sorted((tmp_path / "views").iterdir()), identity, tmp_path)
    assert found.file.name == "scene_restored.png" and found.before.shape[2] == 3
    for side in ("left", "right"):
        raw_files.write_pgm(tmp_path / "views" / f"other_{side}.pgm", frames[side] * 4)
    with pytest.raises(DataError, match="other_right.pgm, .*: expected the files of one shot"):
        read_photograph(sorted((tmp_path / "views").iterdir()), tmp_path)
    pytest.importorskip("rawpy", reason="the extra [raw] is not installed")
    raw = raw_files.write_cr2(tmp_path / "photo.CR2", [frames["sum"], frames["left"]])
    assert restore_photograph([raw], identity, tmp_path).file.name == "photo_restored.png"


def test_errors_name_the_file_and_not_where_it_is_kept(tmp_path):
    (tmp_path / "views").mkdir()
    for name in "lr":
        (tmp_path / "views" / f"{name}.png").write_bytes(b"bad")
    with pytest.raises(DataError) as caught:
        read_photograph(sorted((tmp_path / "views").iterdir()), tmp_path)
    assert without_folder(caught.value, tmp_path / "views").startswith("l.png: not an image")
