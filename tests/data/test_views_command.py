"""`k3dn views`: from camera files to 16-bit pictures, and what it says."""
import cv2
import numpy as np
import pytest
import raw_files

from k3dn_plugin.commands import _console
from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.raw import ViewSettings, read_views
from k3dn_plugin.errors import DataError, OptionError

pytest.importorskip("rawpy", reason="the extra [raw] is not installed")


def main(argv):
    """Run `k3dn views`; errors are raised, not printed."""
    return _console._run(["views", *map(str, argv)], None)


@pytest.fixture
def photo(tmp_path):
    frames = raw_files.dual_pixel_frames(5, (200, 280))
    return raw_files.write_cr2(tmp_path / "photo.CR2", [frames["sum"], frames["left"]])


def test_views_are_written_with_16_bits(photo, tmp_path, capsys):
    assert main([str(photo), "-o", str(tmp_path / "out")]) == 0
    views = read_views(photo)
    for view, ending in (("left", "L"), ("right", "R"), ("center", "C")):
        written = read_image(tmp_path / "out" / f"photo_{ending}.png", bits=16)
        assert np.array_equal(written, getattr(views, view))
    said = capsys.readouterr().out
    assert "Canon Dual Pixel RAW (CR2), Canon EOS 5D Mark IV; 280 x 200 pixels, sRGB, 16 bits" in said
    assert "mostly negative, as of content nearer than the focus" in said and "--swap" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["photo_C.png", "photo_L.png", "photo_R.png"]


def test_options_reach_the_files(photo, tmp_path, capsys):
    assert main([str(photo), "-o", str(tmp_path), "--light", "linear", "--scale", "4", "--swap", "--format", "tif",
                 "--mask"]) == 0
    views = read_views(photo, ViewSettings(light="linear", scale=4))
    written = cv2.imread(str(tmp_path / "photo_L.tif"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert written.dtype == np.uint16 and np.array_equal(written, views.right)
    assert (cv2.imread(str(tmp_path / "photo_M.png"), cv2.IMREAD_UNCHANGED) == 255).all()
    assert "70 x 50 pixels, linear" in capsys.readouterr().out


def test_a_swapped_shot_says_the_other_sign(photo, tmp_path, capsys):
    main([str(photo), "-o", str(tmp_path), "--swap"])
    assert "mostly positive, as of content beyond the focus" in capsys.readouterr().out


def test_one_bad_file_does_not_stop_the_others(photo, tmp_path, capsys):
    (tmp_path / "bad.CR2").write_bytes(photo.read_bytes()[:-100])
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "bad.CR2: the file is cut off" in said.err and said.err.count("\n") == 1
    assert "photo_L.png" in said.out and not (tmp_path / "out" / "bad_L.png").exists()
    with pytest.raises(DataError, match="cut off"):
        main([str(tmp_path / "bad.CR2"), "-o", str(tmp_path / "out")])


def test_a_file_without_its_partner_does_not_stop_the_others(photo, tmp_path, capsys):
    (tmp_path / "scene_left.pgm").write_bytes(b"P5 2 1 65535\n1234")
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "scene_right.pgm is not beside it" in said.err
    assert said.err.count("\n") == 1 and "photo_L.png" in said.out


def test_results_of_one_name_are_refused_before_anything_is_written(photo, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "photo.CR2").write_bytes(photo.read_bytes())
    with pytest.raises(OptionError, match="would both be written as photo_L"):
        main([str(photo), str(tmp_path / "b"), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_clipping_a_turned_camera_and_vertical_pairs_are_reported(tmp_path, capsys):
    frames = raw_files.dual_pixel_frames(5, (200, 280))
    frames["sum"][50:60, 50:60] = 16383
    raw_files.write_cr2(tmp_path / "photo.CR2", [frames["sum"], frames["left"]])
    main([str(tmp_path / "photo.CR2"), "-o", str(tmp_path), "--mask"])
    assert "clipped: 0.86% of the pixels" in capsys.readouterr().out
    mask = cv2.imread(str(tmp_path / "photo_M.png"), cv2.IMREAD_UNCHANGED)
    assert (mask == 0).sum() == 22 ** 2 and (mask[44:66, 44:66] == 0).all()
    for view, frame in (("left", frames["left"]), ("right", frames["right"])):
        raw_files.write_pgm(tmp_path / f"scene_{view}.pgm", frame.T * 4 + 4096)
    main([str(tmp_path / "scene_left.pgm"), "-o", str(tmp_path)])
    said = capsys.readouterr().out
    assert "along the columns, where this kind of file should have none" not in said
    assert "warning: the views are shifted along the rows" in said
