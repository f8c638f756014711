"""`k3dn restore` on camera files: from a raw file to a picture that stands upright."""
from dataclasses import replace

import numpy as np
import pytest
import raw_files
import torch
from tiny_evaluation_parts import EvaluationConv
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.commands import main
from k3dn_plugin.data.exif import Entry, Exif
from k3dn_plugin.data.image_metadata import ImageMetadata, read_metadata
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.data.raw import ViewSettings, read_views
from k3dn_plugin.data.raw.results import write_views
from k3dn_plugin.inference.camera_files import QUARTER_TURNS, find_shots, read_shot
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.weights import save_weights


@ARCHS.register_module()
class CenterOfCameraFiles(Restorer):
    """Gives the center view back."""

    card = RestorerCard(title="a test", paper="none", year=2026, venue="none", official_license="none",
                        views=("center",), receptive_margin=0, view_order_matters=False)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def restore(self, views):
        return views * self.gain


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "models" / "best.safetensors"
    save_weights(path, CenterOfCameraFiles(), network_g={"type": "CenterOfCameraFiles"}, provenance={})
    return path


@pytest.fixture
def photo(tmp_path):
    pytest.importorskip("rawpy", reason="the extra [raw] is not installed")
    frames = raw_files.dual_pixel_frames(7)
    return raw_files.write_cr2(tmp_path / "photo.CR2", [frames["sum"], frames["left"]])


@pytest.fixture
def call(capsys):
    def run(*arguments):
        try:
            status = main(["restore", *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()
    return run


def test_a_raw_file_goes_all_the_way(call, photo, tmp_path, weights):
    status, out, err = call(photo, "-o", tmp_path / "sharp.png", "--weights", weights)
    assert (status, err) == (0, "") and "sharp.png: 16 bit" in out
    assert np.array_equal(read_image(tmp_path / "sharp.png", bits=16), read_views(photo).center)


def test_the_network_gets_left_before_right(photo, tmp_path):
    views = read_views(photo)
    shot, = find_shots([photo], tmp_path / "sharp.png").shots
    for swap in (False, True):
        pair = read_shot(shot, swap=swap)
        one, other = (views.right, views.left) if swap else (views.left, views.right)
        expected = np.concatenate([one, other], -1).transpose(2, 0, 1)[None] / 65535
        assert np.abs(pair.lq.numpy() - expected).max() < 1e-6
        assert pair.bits == 16 and pair.colour and pair.disparity_axis == "x" and pair.quarter_turns == 0


@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_turned_camera_gives_an_upright_picture(orientation, turns, call, tmp_path, weights):
    pytest.importorskip("rawpy", reason="the extra [raw] is not installed")
    frames = raw_files.dual_pixel_frames(7)
    path = raw_files.write_cr2(tmp_path / "p.CR2", [frames["sum"], frames["left"]], orientation=orientation)
    views = read_views(path)
    assert views.left.shape == (64, 96, 3)  # as on the sensor
    assert QUARTER_TURNS[views.metadata["flip"]] == turns
    assert call(path, "-o", tmp_path / "sharp.png", "--weights", weights)[0] == 0
    assert np.array_equal(read_image(tmp_path / "sharp.png"), np.rot90(views.center, turns))


def test_a_raw_file_knows_its_axis(call, photo, tmp_path):
    torch.manual_seed(1)   # of a network that gives another picture of a turned pair
    save_weights(tmp_path / "conv.safetensors", EvaluationConv(), network_g={"type": "EvaluationConv"}, provenance={})
    said = {}
    for axis in "xy":
        status, _, said[axis] = call(photo, "-o", tmp_path / f"{axis}.png", "--disparity-axis", axis, "--weights",
                                     tmp_path / "conv.safetensors")
        assert status == 0
    assert np.array_equal(read_image(tmp_path / "x.png"), read_image(tmp_path / "y.png"))
    assert said["x"] == "" and "shifted along x: that is taken, in place of the y that was asked for" in said["y"]


def test_of_files_that_do_not_tell_their_axis_the_user_does(tmp_path):
    for view, frame in raw_files.dual_pixel_frames(8, (40, 32)).items():
        if view != "sum":
            raw_files.write_pgm(tmp_path / f"{view}.pgm", frame * 4)
    shot, = find_shots([tmp_path / "left.pgm"], tmp_path / "out").shots
    assert [read_shot(shot, axis=axis).disparity_axis for axis in (None, "x", "y")] == ["x", "x", "y"]


def test_folders_of_camera_files(call, photo, tmp_path, weights):
    for view, frame in raw_files.dual_pixel_frames(8, (32, 48)).items():
        if view != "sum":
            raw_files.write_pgm(tmp_path / f"scene_{view}.pgm", frame * 4)
    assert call(tmp_path, "-o", tmp_path / "out", "--weights", weights)[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["photo.png", "scene.png"]
    assert read_image(tmp_path / "out" / "scene.png", bits=16, gray=True).shape == (32, 48, 1)
    status, _, err = call(tmp_path, "-o", tmp_path / "one.png", "--weights", weights)
    assert status == 2 and "there are 2 shots to restore, so give a folder" in err


def test_a_bad_file_in_a_folder_does_not_stop_the_others(call, photo, tmp_path, weights):
    folder = tmp_path / "photos"
    folder.mkdir()
    photo.rename(folder / "photo.CR2")
    raw_files.write_pgm(folder / "scene_left.pgm", np.zeros((9, 24), np.uint16))
    write_image(folder / "door_lb.png", np.zeros((8, 8, 3), np.uint8))
    (folder / "e.DNG").touch()
    status, out, err = call(folder, "-o", tmp_path / "out", "--weights", weights)
    assert status == 2 and "photo.png: 16 bit" in out
    assert "3 of 4 pairs could not be restored; the others are restored. Not restored:" in err
    for words in ("its right view scene_right.pgm is not beside it", "door_lb.png: of its", "an empty file"):
        assert words in err, words
    assert err.count("\n") == 4


def test_pictures_beside_raw_files_by_a_pattern(call, photo, tmp_path, weights):
    write_image(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8))
    status, out, err = call(tmp_path / "a.jpg", photo, "-o", tmp_path / "out", "--weights", weights)
    assert status == 2 and "photo.png: 16 bit" in out and "1 of 2 pairs could not be restored" in err
    assert "a.jpg: a JPEG picture" in err and "--left L.png --right R.png" in err


def test_views_in_files_of_their_own_get_the_way_on(call, photo, tmp_path, weights):
    for name in ("a_L.png", "a_R.png", "b.png"):
        write_image(tmp_path / "views" / name, np.zeros((8, 8, 3), np.uint8))
    status, _, err = call(tmp_path / "views", "-o", tmp_path / "out", "--weights", weights)
    assert status == 2 and "expected camera files" in err and "--left L.png --right R.png" in err
    photo.rename(tmp_path / "views" / "photo.CR2")
    status, out, err = call(tmp_path / "views", "-o", tmp_path / "out", "--weights", weights)
    assert status == 0 and "photo.png: 16 bit" in out and err.count("\n") == 1
    assert err.startswith("note: ") and "a_L.png, a_R.png left alone" in err and "--left L.png" in err
    status, _, err = call(tmp_path / "views" / "a_L.png", tmp_path / "views" / "a_R.png", "-o", tmp_path / "o.png",
                          "--weights", weights)
    assert status == 2 and "no shot with two views was found" in err and "--left L.png --right R.png" in err


@pytest.mark.parametrize("suffix, bits", [("png", 8), ("tif", 16)])
def test_a_quad_pixel_set_keeps_what_its_files_say(suffix, bits, tmp_path):
    exif = Exif({271: Entry(2, 5, b"Some\0")})
    said = ImageMetadata(bytes(16) + b"RGB " + bytes(range(180)), 6, exif)
    draw = np.random.default_rng(0)
    for corner in ("lt", "rt", "lb", "rb"):
        picture = draw.integers(0, 255, (8, 12, 3)).astype(np.uint8 if bits == 8 else np.uint16)
        write_image(tmp_path / f"{corner}.{suffix}", picture, said)
    shot, = find_shots([tmp_path], tmp_path / "out").shots
    pair = read_shot(shot)
    assert (pair.metadata, pair.quarter_turns) == (said, 0)
    assert read_views(tmp_path, ViewSettings(light="linear")).picture == replace(said, profile=None)
    written = write_views(read_views(tmp_path), tmp_path / "views", "a")
    assert [read_metadata(path) for path in written] == 3 * [said]


def test_a_pair_shifted_along_the_rows_is_turned_for_the_network(tmp_path):
    for view, frame in raw_files.dual_pixel_frames(8, (24, 64)).items():
        if view != "sum":
            raw_files.write_pgm(tmp_path / f"{view}.pgm", frame.T * 4)
    shot, = find_shots([tmp_path / "left.pgm"], tmp_path / "out").shots
    assert read_shot(shot).disparity_axis == "y" and shot.out == tmp_path / "out" / f"{tmp_path.name}.png"


@pytest.mark.parametrize("arguments, message", [
    (["photo.CR2", "--left", "a.png"], "--left and camera files (photo.CR2) exclude each other"),
    ([], "nothing to restore: give a camera file"),
    (["--left", "a.png"], "nothing to restore"),
    (["--left", "a.png", "--right", "b.png", "--swap"], "--swap is for camera files"),
    (["nowhere.CR2"], "there is no file or folder nowhere.CR2")])
def test_what_does_not_go_together(arguments, message, call, tmp_path, weights):
    status, _, err = call(*arguments, "-o", tmp_path / "o.png", "--weights", weights)
    assert status == 2 and message in err and err.count("\n") == 1
