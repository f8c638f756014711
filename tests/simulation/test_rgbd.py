"""Pictures with depth: files, folders, what is wrong with them, and the scenes made of them."""
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from k3dn_plugin.data.depth_files import read_depth, read_pfm
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.errors import DataError, OptionError, SizeError
from k3dn_plugin.registry import PSF_FAMILIES
from k3dn_plugin.simulation import dddnet, rdpd
from k3dn_plugin.simulation.build import build_from_depth, build_simulated
from k3dn_plugin.simulation.disparity import disparity_map
from k3dn_plugin.simulation.layers import Surface, render_pair, surfaces_from_depth
from k3dn_plugin.simulation.pairs import random_source
from k3dn_plugin.simulation.psf import PsfSettings, kernel_pair
from k3dn_plugin.simulation.rgbd import RgbdSettings, _published, check_rgbd, draw_rgbd_scene
from k3dn_plugin.simulation.settings import SimulationSettings
from k3dn_plugin.simulation.sources import RgbdFolder

ROOT = Path(__file__).resolve().parents[2]
SIZE = (96, 120)
SETTINGS = SimulationSettings(size=(64, 72), max_radius=4.0, families=("half_disc",), distortion_share=0.0)


def picture(seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE[::-1])


def depth(near=1.0, far=4.0):
    values = np.full(SIZE, far, np.float32)
    values[20:70, 30:80] = near
    return values


def write_pfm(path, values, order="<"):
    header = f"Pf\n{values.shape[1]} {values.shape[0]}\n{-1.0 if order == '<' else 1.0}\n"
    path.write_bytes(header.encode() + values[::-1].astype(order + "f4").tobytes())


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "nyu"
    for name in ("rgb", "depth"):
        (root / name).mkdir(parents=True)
    for i in range(2):
        cv2.imwrite(str(root / "rgb" / f"room_{i}.png"), picture(i))
        cv2.imwrite(str(root / "depth" / f"room_{i}.png"), (1000 * depth(1.0 + i)).astype(np.uint16))
    return root


class TestFiles:
    def test_all_formats_give_the_same_depth(self, tmp_path):
        values = depth()
        cv2.imwrite(str(tmp_path / "a.png"), (1000 * values).astype(np.uint16))
        np.save(tmp_path / "a.npy", values)
        write_pfm(tmp_path / "a.pfm", values)
        write_pfm(tmp_path / "b.pfm", values, ">")
        for name in ("a.png", "a.npy", "a.pfm", "b.pfm"):
            np.testing.assert_allclose(read_depth(tmp_path / name), values)
        np.testing.assert_allclose(read_depth(tmp_path / "a.png", scale=5000), values / 5)

    def test_opencv_reads_the_same_pfm(self, tmp_path):
        # Numbers whose first byte is a white space: the header ends after one of them, not after all.
        values = np.frombuffer(struct.pack("<I", 0x3F800A0A) * (SIZE[0] * SIZE[1]), "<f4").reshape(SIZE)
        values = values + np.arange(SIZE[0], dtype=np.float32)[:, None]
        cv2.imwrite(str(tmp_path / "a.pfm"), values)
        np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)

    def test_unknown_depth_is_nan_in_files_and_filled_in_pictures(self, folder):
        values = (1000 * depth()).astype(np.uint16)
        values[:10] = 0
        cv2.imwrite(str(folder / "depth" / "room_0.png"), values)
        assert np.isnan(read_depth(folder / "depth" / "room_0.png")[:10]).all()
        filled = RgbdFolder(folder)[0].depth.numpy()
        assert np.isfinite(filled).all() and np.allclose(filled[:10], 4, atol=0.2)

    def test_synthias_colours(self, tmp_path):
        code = int(12.5 / 1000 * (256 ** 3 - 1))
        colors = np.full((4, 5, 3), (code >> 16, code >> 8 & 255, code & 255), np.uint8)  # B, G, R
        cv2.imwrite(str(tmp_path / "a.png"), colors)
        np.testing.assert_allclose(read_depth(tmp_path / "a.png", encoding="synthia"), 12.5, rtol=1e-5)

    @pytest.mark.parametrize("data, message", [(b"PF\n2 2\n-1\n" + bytes(48), "expected a PFM file of one"),
                                               (b"Pf\n2 2\n-1\n" + bytes(12), "cut off.* 2 x 2 numbers"),
                                               (b"Pf\nx 2\n-1\n", "expected a PFM file of one"),
                                               (b"", "expected a PFM file of one")])
    def test_damaged_pfm(self, tmp_path, data, message):
        (tmp_path / "a.pfm").write_bytes(data)
        with pytest.raises(DataError, match=message):
            read_pfm(tmp_path / "a.pfm")

    def test_other_damage(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((4, 5, 3)))
        with pytest.raises(DataError, match="expected an .H, W. array"):
            read_depth(tmp_path / "a.npy")
        (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(DataError, match="b.npy"):
            read_depth(tmp_path / "b.npy")
        with pytest.raises(DataError, match="there is no image"):
            read_depth(tmp_path / "none.png")


class TestFolders:
    def test_folders_are_found_or_given(self, folder):
        assert RgbdFolder(folder).names == ["room_0", "room_1"]
        assert len(RgbdFolder(folder / "rgb", folder / "depth")) == 2
        picture_0 = RgbdFolder(folder)[0]
        assert picture_0.photograph.shape == (3, *SIZE) and picture_0.depth.shape == SIZE

    def test_missing_depth_is_named(self, folder):
        (folder / "depth" / "room_1.png").unlink()
        with pytest.raises(DataError, match="1 pictures have no depth in .*e.g. room_1"):
            RgbdFolder(folder)

    def test_missing_pictures_are_named(self, folder):
        (folder / "rgb" / "room_0.png").unlink()
        with pytest.raises(DataError, match="1 depth files have no picture in .*e.g. room_0"):
            RgbdFolder(folder)

    def test_exchanged_folders_are_refused(self, folder):
        exchanged = RgbdFolder(folder / "depth", folder / "rgb")
        with pytest.raises(DataError, match="exchanged"):
            exchanged[0]
        with pytest.raises(DataError, match="expected depth, .*found 3 channels of uint8.*exchanged"):
            read_depth(folder / "rgb" / "room_0.png")

    def test_other_sizes_and_empty_maps_are_refused(self, folder):
        cv2.imwrite(str(folder / "depth" / "room_0.png"), np.full((50, 60), 1000, np.uint16))
        cv2.imwrite(str(folder / "depth" / "room_1.png"), np.zeros(SIZE, np.uint16))
        pictures = RgbdFolder(folder)
        with pytest.raises(DataError, match=r"room_0.png: depth of \(50, 60\) pixels"):
            pictures[0]
        with pytest.raises(DataError, match="room_1.png: depth is known in 0%"):
            pictures[1]

    def test_no_folders(self, tmp_path):
        with pytest.raises(DataError, match="expected a folder of pictures .*found neither"):
            RgbdFolder(tmp_path)
        with pytest.raises(DataError, match="no such folder"):
            RgbdFolder(tmp_path / "a", tmp_path / "b")

    def test_twice_the_same_name(self, folder):
        cv2.imwrite(str(folder / "rgb" / "room_0.jpg"), picture())
        with pytest.raises(DataError, match="two files are called room_0"):
            RgbdFolder(folder)


class TestScenes:
    def test_focus_decides_the_sign(self, folder):
        picture_0 = RgbdFolder(folder)[0]
        for focus, signs in ((1.0, {0, 1}), (4.0, {-1, 0}), (2.0, {-1, 1})):
            frames = draw_rgbd_scene(picture_0, SETTINGS, RgbdSettings(focus=focus), random_source(0), whole=True)
            assert set(np.sign(np.round(frames["defocus"], 3)).astype(int).ravel()) == signs
            assert np.abs(frames["defocus"]).max() <= 4
            np.testing.assert_allclose(np.sign(frames["disparity"]), np.sign(frames["defocus"]))

    def test_a_lens_gives_its_own_radii(self, folder):
        frames = draw_rgbd_scene(RgbdFolder(folder)[0], SETTINGS,
                                 RgbdSettings(lens=(5.0, 4.0, 0.005), focus=1.0), random_source(0), whole=True)
        far = 5 / 4 / 2 * (5 * 1000 / 995) / 1000 * 3 / 4 / 0.005
        assert float(frames["defocus"].max()) == pytest.approx(far, rel=1e-4)
        sharp = frames["defocus"] == 0
        assert np.abs(frames["left"][sharp].astype(int) - frames["sharp"][sharp]).mean() < 1200

    @pytest.mark.parametrize("mode", ["layered", "rdpd", "dddnet"])
    def test_every_mode_fills_a_store(self, folder, tmp_path, mode):
        settings = SimulationSettings(size=(64, 72), max_radius=4.0, mode=mode, bit_depth=8)
        store = build_from_depth(tmp_path / "a.lmdb", RgbdFolder(folder), settings=settings, count=3)
        assert store.names == ("room_0_00", "room_0_01", "room_1_00") and (tmp_path / "a.png").is_file()
        frames = {v: store.read("room_0_00", v) for v in ("left", "right", "center", "sharp", "defocus", "disparity")}
        assert frames["left"].shape == (*SIZE, 3) and frames["left"].dtype == np.uint8
        assert (frames["left"] != frames["right"]).any()

    def test_published_modes_keep_the_sharp_picture(self, folder):
        for mode in ("rdpd", "dddnet"):
            settings = SimulationSettings(size=(64, 72), mode=mode, bit_depth=8, distortion_share=0.0)
            frames = draw_rgbd_scene(RgbdFolder(folder)[0], settings, RgbdSettings(), random_source(0), whole=True)
            np.testing.assert_array_equal(frames["sharp"][..., ::-1], picture())

    @pytest.mark.parametrize("mode", ["rdpd", "dddnet"])
    def test_a_crop_of_a_published_mode_is_that_of_the_whole(self, folder, mode):
        settings = SimulationSettings(size=(32, 40), mode=mode, bit_depth=8, distortion_share=0.0)
        picture_0 = RgbdFolder(folder)[0]
        crop = draw_rgbd_scene(picture_0, settings, RgbdSettings(), random_source(4))
        random = random_source(4)
        top, left = random.integers(96 - 32 + 1), random.integers(120 - 40 + 1)
        whole = _published(picture_0, slice(0, 96), slice(0, 120), settings, random)
        for view, frame in crop.items():
            difference = whole[view][top:top + 32, left:left + 40].astype(float) - frame
            assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01

    def test_contradictions_are_refused(self, folder, tmp_path):
        with pytest.raises(OptionError, match="need depth in metres"):
            check_rgbd(SETTINGS, RgbdSettings(kind="disparity", focus=2.0))
        with pytest.raises(OptionError, match="kind of depth map"):
            check_rgbd(SETTINGS, RgbdSettings(kind="height"))
        with pytest.raises(DataError, match="room_0: a picture of 96 x 120 is smaller than .* 128 x 128"):
            draw_rgbd_scene(RgbdFolder(folder)[0], SimulationSettings(size=(128, 128)), RgbdSettings(),
                            random_source(0))
        with pytest.raises(OptionError, match="mode rdpd needs pictures with depth"):
            build_simulated(tmp_path / "b.lmdb", folder / "rgb", count=1,
                            settings=SimulationSettings(size=(64, 72), max_radius=4, mode="rdpd"))


class TestStoredDisparity:
    @pytest.mark.parametrize("family", [*PSF_FAMILIES.names(), "stepped"])
    @pytest.mark.parametrize("fast", [False, True])
    def test_it_is_what_was_rendered_at_each_radius(self, family, fast):
        """A dot at each radius: the distance of the views' middles of light. Also for a family that does not scale."""
        if family == "stepped":
            @PSF_FAMILIES.register_module("stepped")
            def stepped(x, y, radius, parameters):
                return ((x.abs() <= radius) & (y.abs() <= radius) & (x < -0.1 * radius ** 2)).to(x.dtype) + 0.1
        psf = PsfSettings(family=family, separation=0.9)
        try:
            for radius in (-7.0, -1.0, 0.3, 0.6, 1.0, 2.3, 6.0):
                dot = torch.zeros(3, 41, 41)
                dot[:, 20, 20] = 1
                map_ = torch.full((41, 41), radius)
                left, right = render_pair([Surface(dot, torch.ones(1, 41, 41), map_)], psf, fast=fast)
                columns = torch.arange(41)
                rendered = float((right[0].sum(0) * columns).sum() / right[0].sum()
                                 - (left[0].sum(0) * columns).sum() / left[0].sum())
                stored = disparity_map(map_, psf, fast=fast)
                assert float(stored[20, 20]) == pytest.approx(rendered, abs=2e-3)
                mixed = map_.clone()
                mixed[:20] = torch.linspace(-7, 7, 41)  # many radii: looked up between levels
                if family != "stepped":
                    assert float(disparity_map(mixed, psf, fast=fast)[30, 20]) == pytest.approx(rendered, abs=2e-3)
        finally:
            if family == "stepped":
                PSF_FAMILIES.unregister("stepped")

    @pytest.mark.parametrize("fast", [False, True])
    def test_it_follows_the_lens_over_the_field(self, fast):
        psf = PsfSettings(separation=1.0, field_tilt=0.8)
        radius = torch.full((33, 121), 5.0)
        stored = disparity_map(radius, psf, fast=fast)
        for column in (10, 60, 110):
            dot = torch.zeros(3, 33, 121)
            dot[:, 16, column] = 1
            left, right = render_pair([Surface(dot, torch.ones(1, 33, 121), radius)], psf, fast=fast)
            columns = torch.arange(121)
            rendered = float(((right[0].sum(0) - left[0].sum(0)) * columns).sum() / right[0].sum())
            assert float(stored[16, column]) == pytest.approx(rendered, abs=0.03)

    def test_that_of_rdpds_kernels_is_their_own(self):
        image = np.zeros((41, 41, 3), np.uint8)
        image[20, 20] = 255
        depth = np.full((41, 41), 60.0)
        frames = rdpd.render_rdpd(image, depth, rdpd.CAMERAS[2], rdpd.PSF_BANK[0])
        columns = np.arange(41)
        left, right = (float((frames[v][..., 0].sum(0) * columns).sum() / frames[v][..., 0].sum())
                       for v in ("left", "right"))
        stored = rdpd.rdpd_disparity(frames["defocus"], rdpd.PSF_BANK[0])
        assert float(stored[20, 20]) == pytest.approx(right - left, abs=0.6) and float(stored[20, 20]) > 1


def blurred(image, kernel):
    """(H, W) convolved with a kernel, the border reflected, in plain NumPy."""
    half = kernel.shape[0] // 2
    padded = np.pad(image, half, mode="reflect")
    total = np.zeros_like(image)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            top, left = 2 * half - row, 2 * half - column
            total += kernel[row, column] * padded[top:top + image.shape[0], left:left + image.shape[1]]
    return total


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
class TestTwoSurfaces:
    """An RGB-D picture of two surfaces against their composition by hand, at any two depths of either sign."""

    @pytest.mark.parametrize("back, front", [(6, 0), (0, -6), (3, -3), (6, 5), (6, 5.3), (-2, -6), (2.5, 0.4),
                                             (0.4, -0.3), (1, 0), (7, 4), (0.9, 0.3), (-1, -1.5)])
    def test_against_the_composition_by_hand(self, fast, back, front):
        generator = np.random.default_rng(0)
        texture = cv2.blur(generator.random((48, 64)), (3, 3))
        mask = np.zeros((48, 64))
        mask[10:38, 24:34] = 1
        image = np.where(mask > 0, texture, 0.25)
        radius = np.where(mask > 0, front, back)
        psf = PsfSettings(family="half_disc", separation=1.0)
        rgb = torch.from_numpy(image).float().expand(3, -1, -1).contiguous()
        surfaces = surfaces_from_depth(rgb, torch.from_numpy(radius).float(), thickness=2.0 if fast else 1.5,
                                       aligned=fast)
        views = render_pair(surfaces, psf, fast=fast)
        for view, near, far in zip(views, kernel_pair(front, psf), kernel_pair(back, psf)):
            coverage = blurred(mask, near.numpy())
            behind = blurred(np.full_like(mask, 0.25), far.numpy())
            expected = behind * (1 - coverage) + blurred(texture * mask, near.numpy())
            assert np.abs(view[0].numpy() - expected).max() < 2e-3

    def test_each_slab_owns_pixels(self, fast):
        radius = torch.full((40, 60), 6.0)
        radius[:, 20:30] = 0
        surfaces = surfaces_from_depth(torch.rand(3, 40, 60), radius, aligned=fast)
        assert len(surfaces) == 2 and [float(s.radius.mean()) for s in surfaces] == pytest.approx([6, 0])

    def test_a_slope_hides_nothing(self, fast):
        """A plane cut into slabs is the plane: as it is rendered as one surface."""
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(3, 60, 240, generator=generator)
        image = torch.nn.functional.avg_pool2d(image[None], 5, 1, 2)[0]
        radius = torch.linspace(-6, 6, 240).expand(60, 240).contiguous()
        cut = render_pair(surfaces_from_depth(image, radius, aligned=fast), PsfSettings(), fast=fast)
        whole = render_pair([Surface(image, torch.ones(1, 60, 240), radius)], PsfSettings(), fast=fast)
        for one, other in zip(cut, whole):
            assert float((one - other).abs().mean()) < 0.01

    def test_noisy_depth_has_a_bounded_number_of_surfaces(self, fast):
        noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * 3
        assert len(surfaces_from_depth(torch.rand(3, 64, 64), noise, aligned=fast)) < 60


class TestDddnet:
    def test_views_are_means_of_splatted_squares(self):
        draw = np.random.default_rng(0)
        image = draw.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        disparity = np.zeros((12, 14))
        disparity[:, 5:9], disparity[6:, 10:] = 4.2, -3.0
        frames = dddnet.render_dddnet(image, disparity)
        for view, direction in (("left", 1), ("right", -1)):
            total, count = np.zeros((12, 14, 3)), np.zeros((12, 14, 1))
            for row in range(12):
                for column in range(14):
                    h = int((abs(disparity[row, column]) + 0.5) // 2)
                    way = direction * (1 if disparity[row, column] >= 0 else -1)
                    for r in range(row, min(row + h, 11) + 1):
                        for c in range(column, column + way * (h + 1), way):
                            if 0 <= c < 14:
                                total[r, c] += image[row, column]
                                count[r, c] += 1
            expected = np.where(count > 0, total / np.maximum(count, 1), image)
            assert np.abs(frames[view] - expected).max() <= 0.5 + 1e-6

    def test_the_farthest_point_is_in_focus_and_near_is_negative(self):
        disparity = dddnet.dddnet_disparity(depth().astype(np.float64), dddnet.CAMERAS[-1])
        assert abs(disparity[0, 0]) < 0.1 and disparity[40, 50] > 3
        frames = dddnet.render_dddnet(picture(), disparity)
        assert frames["defocus"].min() < 0 and frames["defocus"].max() == 0

    def test_wrong_input(self):
        with pytest.raises(SizeError, match="must agree"):
            dddnet.render_dddnet(picture(), np.zeros((4, 5)))
        with pytest.raises(DataError, match="uint8"):
            dddnet.render_dddnet(picture().astype(np.float32), np.zeros(SIZE))
        with pytest.raises(DataError, match="everywhere"):
            dddnet.render_dddnet(picture(), np.full(SIZE, np.nan))


def tool(*arguments):
    return subprocess.run([sys.executable, str(ROOT / "tools" / "simulate.py"), *map(str, arguments)],
                          capture_output=True, text=True)


def test_the_tool_takes_pictures_with_depth(folder, tmp_path):
    done = tool("--rgbd", folder, "--out", tmp_path / "a.lmdb", "--max-radius", 4, "--bits", 8)
    assert done.returncode == 0, done.stderr
    assert "2 scenes" in done.stdout and LmdbStore(tmp_path / "a.lmdb").manifest.facts["bit_depth"] == 8
    done = tool("--rgbd", folder / "rgb", "--depth", folder / "depth", "--out", tmp_path / "b.lmdb", "--mode", "rdpd",
                "--count", 3)
    assert done.returncode == 0, done.stderr
    assert len(LmdbStore(tmp_path / "b.lmdb").names) == 3
    (folder / "depth" / "room_0.png").unlink()
    failed = tool("--rgbd", folder, "--out", tmp_path / "c.lmdb")
    assert failed.returncode == 2 and "no depth" in failed.stderr and failed.stderr.startswith("error:")
    assert not list(tmp_path.glob("c.lmdb*"))
