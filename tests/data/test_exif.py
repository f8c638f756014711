"""EXIF, profile and orientation survive from any format to any other; what would be wrong elsewhere stays behind."""
import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from k3dn_plugin.data import image_metadata
from k3dn_plugin.data.exif import Entry, Exif, read_exif
from k3dn_plugin.data.image_metadata import ImageMetadata, long_png_texts, read_metadata, with_metadata
from k3dn_plugin.data.images import encode_image, read_image, write_image
from k3dn_plugin.errors import DataError

TAKEN, EXPOSURE, COMMENT, MAKER, WIDTH = 36867, 33434, 37510, 37500, 40962


def taken(orientation=6, comment=b"ASCII\0\0\0by hand", **more):
    exif = Image.Exif()
    exif[0x112], exif[271], exif[272], exif[306] = orientation, "Google", "Pixel 4", "2020:01:02 03:04:05"
    directory = exif.get_ifd(0x8769)
    directory.update({TAKEN: "2019:12:31 23:59:59", EXPOSURE: 1 / 60, COMMENT: comment, MAKER: b"secret" * 9,
                      WIDTH: 4000})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 30.0, 15.5)})
    return exif


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "photo.jpg", exif=taken())
    return tmp_path / "photo.jpg"


def profile_of(space):
    return bytes(16) + space + bytes(280)


def facts_of(path):
    with Image.open(path) as image:
        exif = image.getexif()
        return exif, exif.get_ifd(0x8769), exif.get_ifd(0x8825)


@pytest.mark.parametrize("suffix, dtype", [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint8),
                                           (".tif", np.uint16), (".jpg", np.uint8)])
def test_from_a_photograph_to_every_format_and_back(photo, tmp_path, suffix, dtype):
    metadata = read_metadata(photo)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(dtype)
    path = tmp_path / f"out{suffix}"
    write_image(path, pixels, metadata)
    assert suffix == ".jpg" or np.array_equal(read_image(path), pixels)
    first, exif, gps = facts_of(path)
    assert (first[271], first[272], first[306], first[0x112]) == ("Google", "Pixel 4", "2020:01:02 03:04:05", 6)
    assert exif[TAKEN] == "2019:12:31 23:59:59" and exif[EXPOSURE] == pytest.approx(1 / 60)
    assert exif[COMMENT] == b"ASCII\0\0\0by hand" and (gps[1], gps[2]) == ("N", (48.0, 30.0, 15.5))
    assert MAKER not in exif and WIDTH not in exif
    assert read_metadata(path) == metadata


def test_profile_orientation_and_exif_together(tmp_path):
    metadata = ImageMetadata(profile_of(b"RGB "), 8, read_exif(taken().tobytes()))
    for suffix in (".png", ".tif", ".jpg"):
        write_image(tmp_path / f"a{suffix}", np.zeros((4, 5, 3), np.uint8), metadata)
        assert read_metadata(tmp_path / f"a{suffix}") == metadata


@pytest.mark.parametrize("space, channels", [(b"GRAY", 3), (b"CMYK", 3), (b"RGB ", 1), (b"GRAY", 1), (b"RGB ", 3)])
def test_a_profile_for_other_pixels_than_the_file_has_is_left_out(space, channels, tmp_path):
    pixels = np.zeros((4, 5, 3) if channels == 3 else (4, 5), np.uint8)
    fits = (space, channels) in ((b"GRAY", 1), (b"RGB ", 3))
    for suffix in (".png", ".tif", ".jpg"):
        write_image(tmp_path / f"a{suffix}", pixels, ImageMetadata(profile_of(space), 8))
        found = read_metadata(tmp_path / f"a{suffix}")
        assert (found.profile is not None) == fits and found.orientation == 8


@pytest.mark.parametrize("size", [2**20 + 1, 2**24 - 300])
def test_long_profiles_and_texts_of_png_files(size, tmp_path):
    before = PngImagePlugin.MAX_TEXT_CHUNK
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    # That does not get shorter when compressed: OpenCV has a bound of its own on what lies in the file.
    metadata = ImageMetadata(profile_of(b"RGB ") + np.random.default_rng(1).bytes(size), 8)
    write_image(tmp_path / "a.png", pixels, metadata)
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels) and read_metadata(tmp_path / "a.png") == metadata
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", "x" * size, zip=True)
    Image.fromarray(pixels).save(tmp_path / "b.png", pnginfo=texts, exif=taken())
    assert np.array_equal(read_image(tmp_path / "b.png"), pixels) and read_metadata(tmp_path / "b.png").orientation == 6
    assert PngImagePlugin.MAX_TEXT_CHUNK == before


def test_a_text_without_end_is_refused_for_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(image_metadata, "MOST_TEXT", 2**21)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 2**22, zip=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.png", pnginfo=texts)
    with pytest.raises(DataError, match="a.png: the PNG file holds texts or a color profile of more than"):
        read_image(tmp_path / "a.png")


def test_several_threads_leave_the_bound_of_pillow_as_it_was():
    before = PngImagePlugin.MAX_TEXT_CHUNK
    with long_png_texts():
        with long_png_texts():
            assert PngImagePlugin.MAX_TEXT_CHUNK == image_metadata.MOST_TEXT
        assert PngImagePlugin.MAX_TEXT_CHUNK == image_metadata.MOST_TEXT
    assert PngImagePlugin.MAX_TEXT_CHUNK == before


def test_both_byte_orders_say_the_same():
    entries = {271: Entry(2, 4, b"abc\0"), 306: Entry(2, 20, b"2020:01:02 03:04:05\0")}
    little = Exif(entries, {EXPOSURE: Entry(5, 1, struct.pack("<II", 1, 60)), 0x9000: Entry(7, 4, b"0232"),
                            0x8827: Entry(3, 2, struct.pack("<HH", 100, 200))}, {})
    found = read_exif(little.serialized())
    assert found == little
    big = b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHI4s", 271, 2, 4, b"abc\0") + struct.pack(
        ">HHII", 0x8769, 4, 1, 38) + bytes(4)
    big += struct.pack(">HHHII", 1, EXPOSURE, 5, 1, 56) + bytes(4) + struct.pack(">II", 1, 60)
    assert read_exif(big) == Exif({271: entries[271]}, {EXPOSURE: Entry(5, 1, struct.pack("<II", 1, 60))}, {})


def test_damaged_exif_does_no_harm():
    whole = read_exif(taken().tobytes()).serialized(6)
    draw = np.random.default_rng(0)
    for length in range(0, len(whole), 3):
        read_exif(whole[:length])
    for _ in range(300):
        broken = bytearray(whole)
        for place in draw.integers(8, len(whole), 4):
            broken[place] = draw.integers(256)
        found = read_exif(bytes(broken))
        assert len(found.serialized()) < 400_000
    assert not read_exif(b"") and not read_exif(b"PK\3\4" + bytes(90))


def test_what_a_jpeg_file_cannot_hold_is_left_out():
    many = Exif({}, {tag: Entry(7, 30_000, bytes(30_000)) for tag in (1, 2, 3)}, {})
    data = with_metadata(encode_image(np.zeros((4, 4, 3), np.uint8), ".jpg"), ImageMetadata(orientation=6, exif=many))
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x112] == 6 and not image.getexif().get_ifd(0x8769)
