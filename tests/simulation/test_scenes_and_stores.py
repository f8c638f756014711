"""Random scenes, the read-out, and the stores made of them."""
import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from k3dn_plugin.commands import simulate
from k3dn_plugin.data.sample import SampleIndex
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.registry import DATASETS
from k3dn_plugin.simulation.build import build_simulated
from k3dn_plugin.simulation.color import linear_to_srgb, srgb_to_linear
from k3dn_plugin.simulation.demo import load_motorcycle
from k3dn_plugin.simulation.pairs import SimulationSettings, simulate_scene
from k3dn_plugin.simulation.sensor import SensorSettings, expose, quantize
from k3dn_plugin.simulation.settings import check_settings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = SimulationSettings(size=(48, 56), max_radius=3.0)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(2):
        coarse = random.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"photo{i}.png"), cv2.resize(coarse, (140, 120)))
    return folder


def pictures():
    return [torch.rand(3, 120, 140, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def test_srgb_there_and_back():
    values = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, rtol=0, atol=1e-6)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)


def test_a_scene_is_decided_by_seed_and_index():
    first = simulate_scene(pictures(), SETTINGS, seed=3, index=5)
    again = simulate_scene(pictures(), SETTINGS, seed=3, index=5)
    other = simulate_scene(pictures(), SETTINGS, seed=3, index=6)
    assert all((first[view] == again[view]).all() for view in first)
    assert (first["left"] != other["left"]).any()


def test_frames_are_what_the_store_promises():
    for index in range(6):
        frames = simulate_scene(pictures(), SETTINGS, seed=0, index=index)
        assert {v: f.dtype for v, f in frames.items()} == {
            "left": np.uint16, "right": np.uint16, "center": np.uint16, "sharp": np.uint16,
            "defocus": np.float32, "disparity": np.float32}
        assert np.abs(frames["defocus"]).max() <= 3.0 + 1.5
        # More than 8 bits are used.
        assert (frames["left"] % 257 != 0).mean() > 0.9


def test_noise_is_independent_and_grows_with_light():
    random = np.random.default_rng(0)
    settings = SensorSettings(shot=0.05, read=0.01)
    dark, bright = torch.full((3, 80, 80), 0.0), torch.full((3, 80, 80), 0.81)
    assert float(expose(dark, 0, settings, random).std()) == pytest.approx(0.01, rel=0.1)
    left, right = (expose(bright, side, settings, random) for side in (0, 1))
    assert float(left.std()) == pytest.approx((0.05 ** 2 * 0.81 + 0.01 ** 2) ** 0.5, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1])) < 0.05
    assert quantize(torch.tensor([-1.0, 0.5, 2.0]).expand(3, 3, 3)).max() == 65535


def test_a_store_is_built_once_and_again_alike(photos, tmp_path):
    store = build_simulated(tmp_path / "a.lmdb", photos, count=3, settings=SETTINGS, seed=1)
    assert store.names == LmdbStore(tmp_path / "a.lmdb").names and len(store.names) == 3
    assert (tmp_path / "a.png").is_file()
    again = build_simulated(tmp_path / "b.lmdb", photos, count=3, settings=SETTINGS, seed=1)
    assert again.hash == store.hash
    assert build_simulated(tmp_path / "a.lmdb", photos, count=9, settings=SETTINGS).hash == store.hash


def test_the_picture_that_a_killed_call_did_not_write_is_written(photos, tmp_path):
    store = build_simulated(tmp_path / "a.lmdb", photos, count=1, settings=SETTINGS, seed=1)
    (tmp_path / "a.png").unlink()
    build_simulated(tmp_path / "a.lmdb", photos, count=1, settings=SETTINGS, seed=1)
    assert (tmp_path / "a.png").exists() and len(store) == 1


def test_an_interrupted_build_goes_on(photos, tmp_path, monkeypatch):
    import k3dn_plugin.simulation.build as build
    whole = build_simulated(tmp_path / "whole.lmdb", photos, count=4, settings=SETTINGS)
    made = []

    def counted(pictures, settings, *, seed, index, device):
        made.append(index)
        if len(made) == 3:
            raise KeyboardInterrupt
        return simulate_scene(pictures, settings, seed=seed, index=index)
    monkeypatch.setattr(build, "simulate_scene", counted)
    with pytest.raises(KeyboardInterrupt):
        build_simulated(tmp_path / "part.lmdb", photos, count=4, settings=SETTINGS)
    assert not (tmp_path / "part.lmdb").exists()
    store = build_simulated(tmp_path / "part.lmdb", photos, count=4, settings=SETTINGS)
    assert made == [0, 1, 2, 2, 3] and store.hash == whole.hash


def test_bad_settings_and_folders_are_refused(photos, tmp_path):
    with pytest.raises(DataError, match="no such folder.*k3dn photographs --source DIR"):
        build_simulated(tmp_path / "x.lmdb", tmp_path / "none", count=1, settings=SETTINGS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none in it"):
        build_simulated(tmp_path / "x.lmdb", tmp_path / "empty", count=1, settings=SETTINGS)
    with pytest.raises(OptionError, match="no PSF family 'disk'"):
        build_simulated(tmp_path / "x.lmdb", photos, count=1,
                        settings=SimulationSettings(size=(48, 48), max_radius=2, families=("disk",)))
    with pytest.raises(OptionError, match="a quarter of frames"):
        build_simulated(tmp_path / "x.lmdb", photos, count=1,
                        settings=SimulationSettings(size=(48, 48), max_radius=20))
    assert not (tmp_path / "x.lmdb.partial").exists()


def test_the_tool_makes_a_store(photos, tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "simulate.py"), "--photos", str(photos), "--out",
                           str(tmp_path / "t.lmdb"), "--count", "2", "--size", "48", "56", "--max-radius", "3"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 scenes" in done.stdout
    failed = subprocess.run([sys.executable, str(ROOT / "tools" / "simulate.py"), "--photos",
                             str(tmp_path / "none"), "--out", str(tmp_path / "u.lmdb")],
                            capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.startswith("error:") and "none" in failed.stderr


def test_the_held_out_scene_has_depth_everywhere():
    image, disparity = load_motorcycle()
    assert image.shape[1:] == disparity.shape
    assert disparity.isfinite().all() and float(disparity.min()) > 0


def test_the_documentations_picture_is_drawn(tmp_path):
    from k3dn_plugin.registry import PSF_FAMILIES
    from k3dn_plugin.simulation.overview import kernel_rows, write_overview
    assert set(PSF_FAMILIES.names()) < set(kernel_rows())
    path = write_overview(tmp_path / "a.jpg")
    assert cv2.imread(str(path)).std() > 10 and path.stat().st_size < 400_000


def test_settings_out_of_range_are_refused():
    for change, message in (({"separation": (0.9, 0.2)}, "separation: expected a range"), ({"shot": -1.0}, "negative"),
                            ({"flat_share": 2.0}, "flat_share: expected a share"), ({"mode": "raytraced"}, "a mode of"),
                            ({"families": ("measured",)}, "needs the folder"), ({"frame": (10, 10)}, "must hold")):
        with pytest.raises(OptionError, match=message):
            check_settings(SimulationSettings(**{"size": (64, 64), **change}))


def test_every_new_part_is_in_the_scene_and_decided_by_the_index():
    settings = SimulationSettings(size=(48, 56), max_radius=3.0, frame=(300, 400), distortion_share=1.0,
                                  smooth_share=1.0, flat_share=0.0, bit_depth=8, fast=True)
    first, again = (simulate_scene(pictures(), settings, seed=3, index=5) for _ in range(2))
    assert all((first[view] == again[view]).all() for view in first)
    assert first["left"].shape == (48, 56, 3) and first["left"].dtype == np.uint8
    # Nothing came from outside the picture.
    assert min(int(first[v].max(2).min()) for v in ("left", "right", "sharp")) > 0
    np.testing.assert_allclose(np.sign(first["disparity"]), np.sign(first["defocus"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_renders_the_same():
    settings = SimulationSettings(size=(64, 72), max_radius=4.0, frame=(300, 400), fast=True)
    for index in range(4):
        here, there = (simulate_scene(pictures(), settings, seed=3, index=index, device=d) for d in ("cpu", "cuda"))
        for view in ("left", "right"):
            assert np.abs(here[view].astype(int) - there[view]).max() <= 8


class TestFormerNames:
    """`separation` was called `split`; what was written then still works."""

    def test_in_an_option_file(self, photos):
        old, new = (DATASETS.build({"type": "SimulatedDualPixelDataset", source: str(photos), "max_radius": 3.0,
                                    "crop_size": 48, name: [0.2, 0.6]})
                    for source, name in (("photos", "split"), ("photographs", "separation")))
        assert old.settings == new.settings and old.settings.separation == (0.2, 0.6)
        assert (old[SampleIndex(0, 1)]["lq"] == new[SampleIndex(0, 1)]["lq"]).all()

    def test_in_a_manifest(self):
        facts = {**SETTINGS.as_facts(), "photographs": ["a.png"], "seed": 3}
        assert SimulationSettings.from_facts(facts) == SETTINGS
        facts["split"] = facts.pop("separation")
        assert SimulationSettings.from_facts(facts) == SETTINGS

    def test_on_the_command_line(self):
        parser = argparse.ArgumentParser()
        simulate.add_arguments(parser)
        for words in (["--split", "0.2", "0.6"], ["--separation", "0.2", "0.6"], ["--set", "split=[0.2,0.6]"],
                      ["--set", "separation=[0.2,0.6]"]):
            settings = simulate.settings_of(parser.parse_args(["--photos", "x", *words]))
            assert settings == SimulationSettings(size=(512, 512), separation=(0.2, 0.6))
        with pytest.raises(OptionError, match="expected NAME=VALUE with a name of .*radius_power"):
            simulate.settings_of(parser.parse_args(["--photos", "x", "--set", "radius=3"]))
        for wrong, message in (("max_radius=many", "max_radius: .*number, found 'many'"), ("exposure=3", "exposure: "),
                               ("exposure=[1", "as YAML writes it"), ("mode=fine", "mode: .*found 'fine'")):
            with pytest.raises(OptionError, match=message):
                simulate.settings_of(parser.parse_args(["--photos", "x", "--set", wrong]))


def test_the_data_set_and_the_command_have_the_defaults_of_the_settings(photos):
    settings = DATASETS.build({"type": "SimulatedDualPixelDataset", "photos": str(photos)}).settings
    assert settings == SimulationSettings(size=(256, 256), fast=True)
