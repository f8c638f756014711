import errno
import os
import struct
import zlib

import numpy as np
import pytest
import raw_files

from k3dn_plugin.data.images import apparent_full_scale, has_8_bit_content, read_image, to_float, write_image
from k3dn_plugin.errors import DataError, StorageError


def picture(dtype, shape=(33, 47, 3)):
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    frame = np.stack([rows * 1200, columns * 900, rows * columns * 30], -1)[..., :shape[2]]
    return (frame / frame.max() * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("suffix, dtype", [(".png", "uint8"), (".png", "uint16"), (".tif", "uint16"),
                                           (".bmp", "uint8")])
def test_a_picture_comes_back_as_written(tmp_path, suffix, dtype):
    image = picture(np.dtype(dtype))
    write_image(tmp_path / f"a{suffix}", image)
    read = read_image(tmp_path / f"a{suffix}", bits=8 * image.dtype.itemsize)
    np.testing.assert_array_equal(read, image)
    assert read.dtype == image.dtype and read.flags.c_contiguous


def test_colours_are_red_green_blue(tmp_path):
    from skimage.io import imread, imsave
    image = picture(np.uint8)
    imsave(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    write_image(tmp_path / "b.png", image)
    np.testing.assert_array_equal(imread(tmp_path / "b.png"), image)


def test_gray_is_repeated_unless_asked_for(tmp_path):
    image = picture(np.uint16, (9, 11, 1))
    write_image(tmp_path / "a.png", image)
    assert read_image(tmp_path / "a.png", gray=True).shape == (9, 11, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(image, 3, 2))
    write_image(tmp_path / "b.png", image[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", gray=True), image)


def test_alpha_is_dropped(tmp_path):
    from skimage.io import imsave
    image = picture(np.uint8)
    imsave(tmp_path / "a.png", np.dstack([image, np.full(image.shape[:2], 77, np.uint8)]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_another_depth_than_promised(tmp_path):
    write_image(tmp_path / "a.png", picture(np.uint8))
    with pytest.raises(DataError, match=r"a\.png: expected 16 bits a channel, the file has 8.*--bits 8"):
        read_image(tmp_path / "a.png", bits=16)
    write_image(tmp_path / "b.png", picture(np.uint16))
    with pytest.raises(DataError, match=r"b\.png: expected 8 bits a channel, the file has 16"):
        read_image(tmp_path / "b.png", bits=8)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_that_was_cut_off_at_any_place(tmp_path, suffix, part):
    path = tmp_path / f"a{suffix}"
    write_image(path, picture(np.uint8, (120, 160, 3)))
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(DataError, match=f"a{suffix}.*copy or download it again"):
        read_image(path)


def test_every_cut_of_a_png_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, picture(np.uint16, (8, 9, 3)))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"a\.png"):
            read_image(path)


def test_a_changed_byte_in_a_png_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, picture(np.uint16))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged .the checksum"):
        read_image(path)


def test_what_is_not_an_image(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png: not an image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"there is no image .*b\.png"):
        read_image(tmp_path / "b.png")
    (tmp_path / "c.png").mkdir()
    with pytest.raises(DataError, match=r"c\.png: cannot be read"):
        read_image(tmp_path / "c.png")


def test_a_claim_that_the_bytes_cannot_hold(tmp_path):
    write_image(tmp_path / "flat.png", np.zeros((3000, 4000, 3), np.uint16))
    assert read_image(tmp_path / "flat.png").shape == (3000, 4000, 3)
    data = bytearray((tmp_path / "flat.png").read_bytes())
    for columns, rows in ((60000, 60000), (4000, 30000)):
        struct.pack_into(">II", data, 16, columns, rows)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        (tmp_path / "huge.png").write_bytes(data)
        with pytest.raises(DataError, match=f"huge.png: .* claims {columns} x {rows} pixels"):
            read_image(tmp_path / "huge.png")
    (tmp_path / "no_head.png").write_bytes(data[:8] + data[-12:])
    with pytest.raises(DataError, match="no_head.png: not an image"):
        read_image(tmp_path / "no_head.png")
    (tmp_path / "huge.bmp").write_bytes(struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 100, 0, 0, 54, 40, 60000, 60000, 1, 24,
                                                    0, 0, 0, 0, 0, 0) + bytes(46))
    with pytest.raises(DataError, match="huge.bmp: the file claims 60000 x 60000 pixels"):
        read_image(tmp_path / "huge.bmp")


def test_what_cannot_be_written(tmp_path):
    for name, image, message in [("a.png", picture(np.uint8).astype(np.float32), "uint8 or uint16"),
                                 ("a.jpg", picture(np.uint16), "holds 8 bits only"),
                                 ("a.xyz", picture(np.uint8), "no image format for the suffix '.xyz'"),
                                 ("a.png", np.zeros((2, 2, 2, 3), np.uint8), "expected .H, W, 3.")]:
        with pytest.raises(DataError, match=message):
            write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_picture(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", picture(np.uint8))

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"could not write .*a\.png: No space left"):
        write_image(tmp_path / "a.png", picture(np.uint8, (5, 5, 3)))
    assert read_image(tmp_path / "a.png").shape == (33, 47, 3)
    assert len(list(tmp_path.iterdir())) == 1


def test_to_float():
    np.testing.assert_allclose(to_float(np.array([0, 255], np.uint8)), [0, 1])
    np.testing.assert_allclose(to_float(np.array([0, 65535], np.uint16)), [0, 1])
    raw = np.array([1009, 1024, 1024 + 16383], np.uint16)
    np.testing.assert_allclose(to_float(raw, black_level=1024, full_scale=16383), [0, 0, 1])
    assert to_float(raw).dtype == np.float32


def write_tiff(path, image, **tags):
    import tifffile
    tifffile.imwrite(path, image, **tags)
    return path


KINDS = {"strips": {}, "tiles": {"tile": (16, 16)}, "deflated": {"compression": "deflate"},
         "big-endian": {"byteorder": ">"}}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", KINDS)
def test_tags_of_tiff_files_are_heeded(tmp_path, dtype, kind):
    image = picture(np.dtype(dtype), (40, 56, 3))
    gray, top, more = image[..., 0], np.iinfo(dtype).max, KINDS[kind]
    path = tmp_path / "a.tif"
    write_tiff(path, image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **more)
    np.testing.assert_array_equal(read_image(path), image)
    write_tiff(path, gray, photometric="miniswhite", **more)
    np.testing.assert_array_equal(read_image(path, gray=True)[..., 0], top - gray)
    write_tiff(path, np.dstack([gray, image[..., 1]]), photometric="minisblack", planarconfig="contig",
               extrasamples=["unassalpha"], **more)
    np.testing.assert_array_equal(read_image(path, gray=True)[..., 0], gray)
    write_tiff(path, np.dstack([image, gray]), photometric="rgb", extrasamples=["unassalpha"], **more)
    np.testing.assert_array_equal(read_image(path), image)
    for orientation in (3, 6):
        write_tiff(path, image, photometric="rgb", extratags=[(274, 3, 1, orientation, True)], **more)
        np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_a_tiff_file_that_was_cut_off(tmp_path, planes, part):
    image = picture(np.uint8, (64, 80, 3))
    path = write_tiff(tmp_path / "a.tif", image if planes == "contig" else image.transpose(2, 0, 1), photometric="rgb",
                      planarconfig=planes, rowsperstrip=16)
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(DataError, match="a.tif.*copy or download it again"):
        read_image(path)


def test_tiff_files_of_other_kinds_are_refused(tmp_path):
    image = picture(np.uint8, (64, 80, 3))
    for name, content, tags, message in [
            ("float.tif", image.astype(np.float32), {"photometric": "rgb"}, "the file has 32-bit floats"),
            ("deep.tif", image.astype(np.uint32), {"photometric": "rgb"}, "the file has 32 bits"),
            ("cmyk.tif", np.dstack([image, image[..., 0]]), {"photometric": "separated"}, "found SEPARATED")]:
        with pytest.raises(DataError, match=f"{name}.*{message}"):
            read_image(write_tiff(tmp_path / name, content, **tags))
    entries = [(256, 4, 60000), (257, 4, 60000), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 200), (278, 4, 60000),
               (279, 4, 100)]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    (tmp_path / "huge.tif").write_bytes(head + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value
                                                        in entries) + bytes(400))
    with pytest.raises(DataError, match="huge.tif: the TIFF file claims 60000 x 60000 pixels"):
        read_image(tmp_path / "huge.tif")


def test_of_raw_files_the_thumbnail_is_not_taken(tmp_path):
    small, raw = picture(np.uint8), np.zeros((32, 48), np.uint16)
    write_tiff(tmp_path / "a.NEF", small, photometric="rgb", subfiletype=1)
    write_tiff(tmp_path / "a.DNG", small, photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    raw_files.write_cr2(tmp_path / "a.CR2", [raw, raw])
    raw_files.write_dng(tmp_path / "b.DNG", [raw])
    (tmp_path / "a.CR3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(100))
    for name in ("a.NEF", "a.DNG", "a.CR2", "b.DNG", "a.CR3"):
        with pytest.raises(DataError, match=f"{name}: expected a picture, found a raw file.* give it alone"):
            read_image(tmp_path / name)
    write_tiff(tmp_path / "a.tif", small, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), small)


def test_of_a_camera_apps_view_it_is_said_how_to_give_it(tmp_path):
    (tmp_path / "a_left.pgm").write_bytes(b"P5 4 4 65535\n" + bytes(32))
    with pytest.raises(DataError, match="a_left.pgm: expected a picture, found a PGM file.* give it alone"):
        read_image(tmp_path / "a_left.pgm")


def test_what_follows_a_picture_does_not_matter(tmp_path):
    path = tmp_path / "a.jpg"
    write_image(path, picture(np.uint8, (120, 160, 3)))
    alone, content = read_image(path), path.read_bytes()
    # A motion photo's video, in which the marker of a scan occurs by chance.
    path.write_bytes(content + b"\0\0\0\x18ftypmp42" + b"\xff\xda" + bytes(3000))
    np.testing.assert_array_equal(read_image(path), alone)
    path.write_bytes(content[:-200] + b"ftypmp42" + bytes(100))
    with pytest.raises(DataError, match="a.jpg: the JPEG file is cut off"):
        read_image(path)


def test_a_bmp_file_that_was_cut_off(tmp_path):
    write_image(tmp_path / "a.bmp", picture(np.uint8))
    os.truncate(tmp_path / "a.bmp", 3000)
    with pytest.raises(DataError, match="a.bmp: the BMP file is cut off"):
        read_image(tmp_path / "a.bmp")


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match=f"{name}.*cannot be read"):
            read_image(tmp_path / name)


def test_numbers_of_fewer_bits_than_their_file():
    assert [apparent_full_scale(n) for n in (1000, 4095, 4096, 16383, 16384)] == [1023, 4095, 16383, 16383, None]
    image = picture(np.uint16)
    assert not has_8_bit_content(image) and not has_8_bit_content(picture(np.uint8))
    assert has_8_bit_content(image // 256 * 256) and has_8_bit_content(image // 256 * 257)
