"""Views out of camera files: exact truth in, every fault reported."""
import struct
import sys
import types

import numpy as np
import pytest
import raw_files

from k3dn_plugin.data.raw import ViewSettings, find_sources, is_camera_file, libraw, mosaics, read_views
from k3dn_plugin.data.raw.base import load_readers
from k3dn_plugin.data.raw.light import decode_srgb, encode_srgb, finish_view, shrink
from k3dn_plugin.data.raw.sides import describe_sides, is_along_other_axis, measure_sides
from k3dn_plugin.data.raw.structure import CANON_BOX, read_structure
from k3dn_plugin.errors import DataError, DependencyError, OptionError

rawpy = pytest.importorskip("rawpy", reason="the extra [raw] is not installed")

LINEAR = ViewSettings(light="linear")


@pytest.fixture
def frames():
    return raw_files.dual_pixel_frames(3)


@pytest.fixture
def photo(tmp_path, frames):
    return raw_files.write_cr2(tmp_path / "photo.CR2", [frames["sum"], frames["left"]])


def developed(path, mosaic, white=16383 - raw_files.BLACK):
    """A mosaic with black level, developed by rawpy alone as one frame of its own file; linear."""
    raw_files.write_cr2(path, [mosaic - raw_files.BLACK])
    with rawpy.RawPy() as raw:
        raw.open_file(str(path))
        raw.unpack()
        return raw.postprocess(output_bps=16, gamma=(1, 1), no_auto_bright=True, adjust_maximum_thr=0.0, user_flip=0,
                               user_black=0, user_sat=white, user_wb=[*raw.daylight_whitebalance[:3],
                                                                      raw.daylight_whitebalance[1]])


# Canon

def test_both_sides_come_back_exactly(photo, frames):
    total, side = libraw.read_frame(photo, 0), libraw.read_frame(photo, 1)
    assert np.array_equal(total.mosaic, frames["sum"]) and np.array_equal(side.mosaic, frames["left"])
    right = mosaics.other_side(total.mosaic, side.mosaic)
    assert np.array_equal(right, frames["right"].astype(int) - raw_files.BLACK)


def test_views_are_those_of_two_single_exposures(photo, frames, tmp_path):
    views = read_views(photo, LINEAR)
    black = raw_files.BLACK
    for view in ("left", "right"):
        twice = (2 * (frames[view].astype(int) - black) + black).astype(np.uint16)
        assert np.array_equal(getattr(views, view), developed(tmp_path / f"{view}.CR2", twice))
    assert np.array_equal(views.center, developed(tmp_path / "c.CR2", frames["sum"]))
    assert views.valid.all() and views.clipped_share == 0
    assert (views.bits, views.light, views.disparity_axis) == (16, "linear", "x")
    assert views.left.dtype == np.uint16 and views.left.shape == (64, 96, 3)
    assert views.metadata["camera"] == raw_files.MODEL and views.metadata["black_level"] == [512] * 4
    assert "states no black level" in views.metadata["notes"][0]


def test_development_does_not_look_at_the_content(photo):
    frame = libraw.read_frame(photo, 0)
    for level in (100, 8000):
        flat = libraw.develop(frame, np.full(frame.mosaic.shape, level), white=16000, balance=(1, 1, 1, 1))
        # The rows of a color matrix add up to one: equal numbers are gray.
        assert flat.reshape(-1, 3).std(0).max() == 0
        assert flat.mean() == pytest.approx(level / 16000 * 65535, rel=0.01)


def test_light_scale_and_swap(photo):
    linear, srgb = read_views(photo, LINEAR), read_views(photo)
    assert srgb.light == "srgb"
    expected = np.round(encode_srgb(linear.left / 65535) * 65535)
    assert np.abs(srgb.left - expected).max() <= 1
    quarter = read_views(photo, ViewSettings(light="linear", scale=4))
    means = linear.right.reshape(16, 4, 24, 4, 3).mean((1, 3))
    assert quarter.right.shape == (16, 24, 3) and np.abs(quarter.right - means).max() <= 1
    assert quarter.valid.shape == (16, 24)
    swapped = read_views(photo, ViewSettings(light="linear", swap=True))
    assert np.array_equal(swapped.left, linear.right) and np.array_equal(swapped.right, linear.left)
    assert swapped.metadata["swapped"] and np.array_equal(swapped.center, linear.center)


def test_clipped_pixels_are_masked_and_white_in_all_views(tmp_path, frames):
    total, side = frames["sum"].copy(), frames["left"].copy()
    total[20:24, 40:44] = 16383
    side[20:24, 40:44] = 9000
    views = read_views(raw_files.write_cr2(tmp_path / "a.CR2", [total, side]), LINEAR)
    reach = mosaics.DEMOSAIC_REACH
    wanted = np.ones((64, 96), bool)
    wanted[20 - reach:24 + reach, 40 - reach:44 + reach] = False
    assert np.array_equal(views.valid, wanted)
    for view in (views.left, views.right, views.center):
        assert (view[21:23, 41:43] > 65000).all()
    # Outside the reach nothing has changed.
    clean = read_views(raw_files.write_cr2(tmp_path / "b.CR2", [frames["sum"], frames["left"]]), LINEAR)
    for view in ("left", "right", "center"):
        assert np.array_equal(getattr(views, view)[wanted], getattr(clean, view)[wanted])
    shrunk = read_views(tmp_path / "a.CR2", ViewSettings(scale=4))
    assert np.array_equal(shrunk.valid, wanted.reshape(16, 4, 24, 4).all((1, 3)))


def test_a_sensor_that_is_full_below_the_stated_white():
    total = np.full((40, 50), 3000, np.uint16)
    assert mosaics.clipping_number(total, 16383) == 16383   # a flat picture is not clipped
    total[:5] = 15100
    assert mosaics.clipping_number(total, 16383) == 15100   # its bright pixels pile up
    total[:5, :] = np.arange(14000, 14250).reshape(5, 50)
    assert mosaics.clipping_number(total, 16383) == 16383


@pytest.mark.parametrize("fault, message", [
    ("identical", "photo.CR2 .CR2 of Canon EOS 5D Mark IV.*two raw frames are identical"),
    ("one frame", "ordinary raw file .CR2 of Canon EOS 5D Mark IV, one raw frame of 64 x 96.*Dual Pixel RAW"),
    ("another exposure", "second raw frame is no side of the first: it has 1..% of its light"),
    ("another scene", "second raw frame is no side of the first"),
    ("two sizes", "its raw frames are 64 x 96 and 32 x 48"),
    ("all clipped", "every pixel is overexposed"),
])
def test_files_that_are_no_dual_pixel_shot(fault, message, frames, tmp_path):
    total, left = frames["sum"], frames["left"]
    small = raw_files.dual_pixel_frames(3, (32, 48))["left"]
    stored = {"identical": [total, total], "one frame": [total], "another exposure": [left, total],
              "another scene": [total, raw_files.dual_pixel_frames(9)["sum"]], "two sizes": [total, small],
              "all clipped": [np.full_like(total, 16383), left]}[fault]
    path = raw_files.write_cr2(tmp_path / "photo.CR2", stored)
    with pytest.raises(DataError, match=message):
        read_views(path)


def test_the_noise_of_a_night_shot_is_no_fault(tmp_path):
    draw = np.random.default_rng(0)
    scene = draw.uniform(0, 600, (64, 96))
    noisy = [raw_files.BLACK + level + draw.normal(0, 250, scene.shape) for level in (2 * scene, scene)]
    path = raw_files.write_cr2(tmp_path / "night.CR2", [np.clip(frame, 0, 16383).astype(np.uint16) for frame in noisy])
    assert read_views(path, ViewSettings(black_level=512)).left.shape == (64, 96, 3)


def test_black_levels(photo, frames, tmp_path):
    assert read_views(photo, ViewSettings(black_level=500)).metadata["black_level"] == [500] * 4
    other = raw_files.write_cr2(tmp_path / "b.CR2", [frames["sum"], frames["left"]], model="Canon EOS Unheard Of")
    views = read_views(other)
    assert views.metadata["black_level"][0] == pytest.approx(512, abs=20)
    assert "by its darkest pixels" in views.metadata["notes"][0]
    # Numbers far below the model's usual black level contradict it.
    dark = [frames["sum"] - 500, frames["left"] - 500]
    views = read_views(raw_files.write_cr2(tmp_path / "c.CR2", dark))
    assert views.metadata["black_level"][0] == pytest.approx(12, abs=20)
    with pytest.raises(OptionError, match="black_level 20000: expected less than 16383"):
        read_views(photo, ViewSettings(black_level=20000))


# Files that are not whole

def test_a_cut_off_file_is_refused_wherever_it_ends(photo):
    data = photo.read_bytes()
    for length in (0, 3, 8, 15, 20, 40, 90, 150, len(data) // 3, len(data) // 2, len(data) - 1):
        photo.write_bytes(data[:length])
        with pytest.raises(DataError, match="photo.CR2: .*(cut off|an empty file|no camera raw|damaged)"):
            read_views(photo)


def test_no_corruption_escapes_as_another_error(photo):
    data = photo.read_bytes()
    draw = np.random.default_rng(5)
    for number in range(60):
        broken = bytearray(data)
        # Headers first, in which every byte matters.
        for place in draw.integers(0, 400 if number < 45 else len(data), 3):
            broken[place] = draw.integers(256)
        photo.write_bytes(broken)
        try:
            read_views(photo, ViewSettings(scale=4))
        except DataError as error:
            assert "photo.CR2" in str(error) and "\n" not in str(error)


def test_libraw_itself_says_nothing(photo, capfd):
    data = bytearray(photo.read_bytes())
    start = data.index(b"\xff\xda") + 12
    data[start:start + 3] = b"\x0f\xfe\xfe"  # the first number becomes one of more than 14 bits
    photo.write_bytes(data)
    with pytest.raises(DataError, match="raw frame 0 cannot be read"):
        read_views(photo)
    assert capfd.readouterr() == ("", "")


def test_a_frame_whose_header_is_damaged(photo):
    data = bytearray(photo.read_bytes())
    place = data.index(b"\xff\xda") + 9  # the predictor's number
    data[place] = 0xFE
    photo.write_bytes(data)
    with pytest.raises(DataError, match="(LibRaw finds one of its 2 raw frames only|cannot be read|no side of)"):
        read_views(photo)


def test_claims_that_the_bytes_cannot_hold(photo, frames, tmp_path):
    data = bytearray(photo.read_bytes())
    place = data.index(b"\xff\xc3")
    struct.pack_into(">HH", data, place + 5, 65000, 32000)
    photo.write_bytes(data)
    with pytest.raises(DataError, match="claims 65000 x 64000 pixels"):
        read_views(photo)
    dng = raw_files.write_dng(tmp_path / "huge.dng", [frames["sum"], frames["left"]], claimed=(60000, 60000))
    with pytest.raises(DataError, match="claims 60000 x 60000 pixels"):
        read_views(dng)


def test_directories_in_a_circle_end(photo):
    data = bytearray(photo.read_bytes())
    struct.pack_into("<I", data, 16 + 2 + 36, 16)  # the first directory's successor is itself
    photo.write_bytes(data)
    assert read_structure(photo).frames == []


@pytest.mark.parametrize("name, content, message", [
    ("photo.jpg", b"\xff\xd8\xff\xe0 and more", "a JPEG picture, out of which no two views"),
    ("photo.txt", b"hello", "of a kind that is not known"),
    ("photo.NEF", b"II*\0\x08\0\0\0", "a TIFF or a raw file, out of which"),
    ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "of the kind 'heic'"),
    ("photo.CR2", b"\xff\xd8\xff\xe0" + bytes(40), "by its beginning no camera raw file"),
    ("photo.DNG", b"hello, this is no picture", "by its beginning no camera raw file"),
    ("photo.CR3", b"\0\0\0\x18ftypcrx " + bytes(12) + b"\0\0\x10\0moov" + bytes(30), "cut off or damaged"),
    ("photo.CR3", b"\0\0\0\x18ftypcrx " + bytes(12), "cannot be read"),
    ("photo.CR3", b"\0\0\0\x18ftypcrx " + bytes(12) + b"\0\0\0\2moov" + bytes(30), "damaged at byte 24"),
])
def test_foreign_files_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: .*{message}|{name} .*{message}"):
        read_views(tmp_path / name)


def test_the_camera_of_a_cr3_is_found_in_its_boxes(tmp_path):
    def box(kind, content):
        return struct.pack(">I4s", 8 + len(content), kind) + content
    texts = b"Canon\0Canon EOS R5\0"
    entries = struct.pack("<HHIIHHII", 271, 2, 6, 38, 272, 2, 13, 44)
    notes = struct.pack("<2sHIH", b"II", 42, 8, 2) + entries + bytes(4) + texts
    moov = box(b"moov", box(b"uuid", bytes(40)) + box(b"uuid", CANON_BOX + box(b"CNCV", b"x") + box(b"CMT1", notes)))
    path = tmp_path / "photo.CR3"
    path.write_bytes(box(b"ftyp", b"crx " + bytes(12)) + moov + struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4))
    facts = read_structure(path)
    assert (facts.kind, facts.camera) == ("CR3", "Canon EOS R5")


# Without rawpy

def test_a_missing_or_old_rawpy_is_named_with_the_extra(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(DependencyError, match=r"pip install 'k3dn_plugin\[raw\]'"):
        read_views(photo)
    old = types.SimpleNamespace(RawPy=object, __version__="0.25.1")
    monkeypatch.setitem(sys.modules, "rawpy", old)
    with pytest.raises(DependencyError, match=r"rawpy 0.25.1 cannot choose the second frame.*0.26"):
        read_views(photo)


# DNG

def test_a_dng_of_a_sum_and_a_side(tmp_path, frames):
    views = read_views(raw_files.write_dng(tmp_path / "a.dng", [frames["sum"], frames["left"]]), LINEAR)
    canon = read_views(raw_files.write_cr2(tmp_path / "a.CR2", [frames["sum"], frames["left"]]), LINEAR)
    assert views.metadata["kind"] == "DNG of a sum and one side" and views.metadata["black_level"] == [512] * 4
    for view in ("left", "right", "center"):
        assert np.abs(getattr(views, view).astype(int) - getattr(canon, view)).max() <= 1


def test_a_dng_of_two_views(tmp_path, frames):
    views = read_views(raw_files.write_dng(tmp_path / "a.dng", [frames["left"], frames["right"]]), LINEAR)
    assert views.metadata["kind"] == "DNG of two views"
    # The DNG's own color matrix has rounded numbers.
    assert np.abs(views.right.astype(int) - developed(tmp_path / "r.CR2", frames["right"])).max() <= 1
    middle = views.left / 2 + views.right / 2  # but for the demosaicing, which is not linear
    assert np.abs(views.center - middle).mean() < 0.02 * middle.mean()


@pytest.mark.parametrize("samples, message", [
    (["sum"], "an ordinary raw file .DNG of Example Two Samples, 64 x 96, one sample a pixel"),
    (["sum", "sum"], "two raw frames are identical")])
def test_a_dng_without_two_views(samples, message, tmp_path, frames):
    path = raw_files.write_dng(tmp_path / "a.dng", [frames[sample] for sample in samples])
    with pytest.raises(DataError, match=message):
        read_views(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="cut off or damaged"):
        read_views(path)


# Google's capture app

@pytest.fixture
def app_pair(tmp_path):
    draw = np.random.default_rng(1)
    numbers = {view: draw.integers(3900, 65535, (27, 72), dtype=np.uint16) for view in ("left", "right")}
    for view, values in numbers.items():
        raw_files.write_pgm(tmp_path / f"scene_{view}.pgm", values)
    return tmp_path / "scene_left.pgm", numbers


def test_pairs_of_the_capture_app(app_pair):
    path, numbers = app_pair
    numbers["left"][0, 0] = 65535
    raw_files.write_pgm(path, numbers["left"], comment="# by hand\n")
    views = read_views(path.with_name("scene_right.pgm"), LINEAR)
    light = np.maximum(numbers["left"].astype(float) - 4096, 0) / (65535 - 4096)
    assert views.left.shape == (54, 72, 1)
    assert np.abs(views.left[::2, :, 0] / 65535 - light).max() < 1e-5
    assert np.array_equal(views.left[::2], views.left[1::2])
    middle = (views.left.astype(float) + views.right) / 2
    assert np.abs(views.center - middle).max() <= 1 and views.metadata["doubled"] == (2, 1)
    assert not views.valid[:2, 0].any() and views.valid[2:].mean() > 0.99
    half = read_views(path, ViewSettings(light="linear", scale=2))
    assert half.left.shape == (27, 36, 1)


def test_a_pair_of_a_turned_phone_is_shifted_along_the_rows(tmp_path, app_pair):
    for view, values in app_pair[1].items():
        raw_files.write_pgm(tmp_path / "turned" / f"{view}.pgm", values.T)
    views = read_views(tmp_path / "turned/left.pgm")
    assert views.left.shape == (72, 54, 1) and views.disparity_axis == "y"


@pytest.mark.parametrize("fault, message", [
    (lambda path: path.with_name("scene_right.pgm").unlink(), "right view scene_right.pgm is not beside it"),
    (lambda path: path.write_bytes(path.read_bytes()[:-2]), "scene_left.pgm: cut off: 72 x 27 pixels take 3,"),
    (lambda path: path.write_bytes(path.read_bytes() + b"x"), "scene_left.pgm: damaged"),
    (lambda path: path.write_bytes(b"P5 99999 99999 65535 " + bytes(8)), "cut off: 99999 x 99999 pixels take"),
    (lambda path: path.write_bytes(b"P5 4 2 255 " + bytes(8)), "expected 16 bits"),
    (lambda path: path.write_bytes(b"P5 hello"), "not a binary PGM"),
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_bytes(path.with_name("scene_right.pgm").read_bytes()), "are the same picture"),
    (lambda path: raw_files.write_pgm(path, np.zeros((9, 72), np.uint16)), "must have one size"),
    (lambda path: path.rename(path.with_name("scene.pgm")), "does not say which view")])
def test_faults_of_capture_app_pairs(fault, message, app_pair):
    path = app_pair[0]
    fault(path)
    with pytest.raises(DataError, match=message):
        read_views(path if path.exists() else path.with_name("scene.pgm"))


# Quad pixel

@pytest.fixture
def quad(tmp_path):
    from k3dn_plugin.data.images import write_image
    draw = np.random.default_rng(2)
    corners = {corner: draw.integers(0, 255, (8, 12, 3), dtype=np.uint8) for corner in ("lt", "rt", "lb", "rb")}
    for corner, picture in corners.items():
        write_image(tmp_path / "shot" / f"{corner}.png", picture)
        write_image(tmp_path / f"one_{corner}.tif", picture.astype(np.uint16) * 257)
    return tmp_path, corners


def test_quad_pixel_sets_make_two_pairs(quad):
    folder, corners = quad
    values = {corner: picture.astype(float) * 257 for corner, picture in corners.items()}
    across, down = read_views(folder / "shot"), read_views(folder / "one_rb.tif", ViewSettings(axis="y"))
    for views, pairs, axis in ((across, ("lt lb", "rt rb"), "x"), (down, ("lt rt", "lb rb"), "y")):
        assert views.disparity_axis == axis
        for view, pair in zip((views.left, views.right), pairs, strict=True):
            assert np.abs(view - sum(values[corner] for corner in pair.split()) / 2).max() <= 0.5
        assert np.abs(views.center - sum(values.values()) / 4).max() <= 0.5
    linear = read_views(folder / "shot", LINEAR)
    assert np.abs(linear.left - decode_srgb(across.left / 65535) * 65535).max() <= 1


@pytest.mark.parametrize("fault, message", [
    (lambda shot: (shot / "rb.png").unlink(), "rb.png is not beside it"),
    (lambda shot: (shot / "lt.png").unlink(), "lt.png is not beside it"),
    (lambda shot: (shot / "rb.png").write_bytes((shot / "lt.png").read_bytes()), "lt.png and .*rb.png are the same"),
    (lambda shot: (shot / "rb.png").write_bytes((shot / "rb.png").read_bytes()[:-9]), "rb.png: .* is cut off"),
    (lambda shot: (shot / "rb.png").write_bytes((shot.parent / "one_rb.tif").read_bytes()), "rows, columns, channels")])
def test_faults_of_quad_pixel_sets(fault, message, quad):
    fault(quad[0] / "shot")
    with pytest.raises(DataError, match=message):
        read_views(quad[0] / "shot")


# What is shared

def test_shots_are_found_once(quad, app_pair, photo):
    folder = quad[0]
    found = find_sources([folder, folder / "shot", folder / "scene_right.pgm", folder / "one_lb.tif"])
    assert found.faults == [] and [(reader.name, source.name) for reader, source in found.shots] == [
        ("quad_pixel", "one_lt.tif"), ("canon", "photo.CR2"), ("pixel_app", "scene_left.pgm"), ("quad_pixel", "lt.png")]
    assert [reader.shot_name(source) for reader, source in found.shots] == ["one", "photo", "scene", "shot"]
    (folder / "none").mkdir()
    with pytest.raises(DataError, match="none: expected camera files in this folder"):
        find_sources([folder / "none"])
    with pytest.raises(DataError, match="there is no file or folder .*nowhere"):
        find_sources([folder / "nowhere"])
    assert is_camera_file("a/B.CR2") and not is_camera_file("b.png")


def test_what_cannot_be_taken_is_told_and_stops_nothing(quad, app_pair, photo):
    folder = quad[0]
    for corner in ("lt", "rt", "lb", "rb"):
        (folder / "shot" / f"{corner}.png").rename(folder / f"{corner}.png")   # a set among other shots
    (folder / "one_rb.tif").unlink()
    (folder / "alone_right.pgm").write_bytes(app_pair[0].read_bytes())
    (folder / "text.pgm").write_bytes(b"P2 1 1 65535 7")
    (folder / "empty.DNG").touch()
    (folder / "gone.CR2").symlink_to("nowhere")
    (folder / "preview.png").write_bytes((folder / "lt.png").read_bytes())   # is left alone
    found = find_sources([folder, folder / "nowhere"])
    assert [source.name for _, source in found.shots] == ["lt.png", "photo.CR2", "scene_left.pgm"]
    assert found.notes == [] and len(found.faults) == 6
    for name, words in (("alone_right.pgm", "alone_left.pgm is not beside it"), ("text.pgm", "in plain text"),
                        ("empty.DNG", "an empty file"), ("gone.CR2", "there is no file"),
                        ("one_lt.tif", "of its quad-pixel set one_rb.tif is not"), ("nowhere", "there is no")):
        assert any(name in str(fault) and words in str(fault) for fault in found.faults), name
    with pytest.raises(DataError, match="no shot with two views was found:\n  .*empty.DNG.*\n  .*text.pgm"):
        find_sources([folder / "empty.DNG", folder / "text.pgm"])


def test_a_header_of_blanks_alone(app_pair):
    for blanks in (b" " * 200, b"\n#" * 200, b" #\n" * 200):
        app_pair[0].write_bytes(b"P5" + blanks + b"x")
        with pytest.raises(DataError, match="not a binary PGM"):
            read_views(app_pair[0])


def test_every_reader_describes_itself():
    for name, reader in load_readers().items():
        assert reader.name == name and reader.title and all(s == s.lower() and s[0] == "." for s in reader.suffixes)


@pytest.mark.parametrize("settings, message", [({"light": "log"}, "light 'log'"), ({"scale": 0}, "scale 0"),
                                               ({"axis": "z"}, "axis 'z'"), ({"black_level": -1}, "black_level -1")])
def test_settings_are_checked(settings, message):
    with pytest.raises(OptionError, match=message):
        ViewSettings(**settings)


def test_a_scale_larger_than_the_picture(photo, app_pair, quad):
    for path in (photo, app_pair[0], quad[0] / "shot"):
        with pytest.raises(OptionError, match="scale 500: the picture has"):
            read_views(path, ViewSettings(scale=500))


def test_the_srgb_curve_and_the_shrink():
    values = np.linspace(0, 1, 1000)
    assert np.abs(decode_srgb(encode_srgb(values)) - values).max() < 1e-9
    assert encode_srgb(np.array(0.5)) == pytest.approx(0.735357, abs=1e-6)
    image = np.arange(7 * 9, dtype=np.float32).reshape(7, 9, 1)
    assert np.array_equal(shrink(image, 2)[..., 0], image[:6, :8, 0].reshape(3, 2, 4, 2).mean((1, 3)))
    assert np.array_equal(shrink(image, 5), image[1:6, 2:7].mean((0, 1), keepdims=True))  # centered
    numbers = np.arange(12, dtype=np.uint16).reshape(2, 2, 3)
    assert finish_view(numbers, encoded=True, light="srgb") is numbers


@pytest.mark.parametrize("shift, said", [(2, "negative, as of content nearer than"), (-2, "as of content beyond"),
                                         (0, "no shift that could be told from none")])
def test_the_sign_of_the_shift_is_reported(shift, said):
    frames = raw_files.dual_pixel_frames(1, (200, 260), shift)
    left, right = frames["left"][..., None], frames["right"][..., None]
    text = describe_sides(measure_sides(left, right))
    assert said in text and ("--swap" in text) == (shift != 0)
    turned = measure_sides(left.transpose(1, 0, 2), right.transpose(1, 0, 2))
    assert said in describe_sides(turned, "y")
    assert is_along_other_axis(turned) == (shift != 0) and not is_along_other_axis(turned, "y")


def test_pairs_without_texture_tell_nothing():
    flat = np.full((200, 200, 1), 7, np.uint16)
    assert "too little texture" in describe_sides(measure_sides(flat, flat)) and not is_along_other_axis(None)
