"""`doctor data`: damage, swapped views, a wrong axis, and sound stores; and the picture of a store."""
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from k3dn_plugin.data import StoreWriter
from k3dn_plugin.data.collage import GAP
from k3dn_plugin.data.contact_sheet import contact_sheet
from k3dn_plugin.doctor.stores import verify
from k3dn_plugin.errors import DataError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "doctor.py"


def write_store(path, shift=3, axis=1, facts=None, disparity=None, scenes=3):
    with StoreWriter(path, dataset="own", facts={"bit_depth": 16, **(facts or {})}) as writer:
        for number in range(scenes):
            noise = np.random.default_rng(number).random((256, 384, 3))
            left = (gaussian_filter(noise, (1, 1, 0)) * 60000).astype(np.uint16)
            frames = {"left": left, "right": np.roll(left, shift, axis), "sharp": left}
            if disparity is not None:
                frames["disparity"] = np.full((256, 384), disparity, np.float32)
            writer.add(f"scene_{number}", frames)
        return writer.finish()


def states(findings):
    return {finding.what.partition(" ")[2] or "store": finding for finding in findings}


def test_a_sound_store(tmp_path):
    write_store(tmp_path / "a.lmdb")
    found = states(verify(tmp_path / "a.lmdb"))
    assert {f.state for f in found.values()} == {"ok"}
    assert "all 9 have the hashes" in found["frames"].detail
    assert "+3.0 to +3.0 px" in found["views"].detail and "nothing tells which sign" in found["views"].detail


@pytest.mark.parametrize("facts, disparity, shift, swapped", [
    ({"usual_shift": "positive"}, None, 3, False), ({"usual_shift": "positive"}, None, -3, True),
    ({"usual_shift": "negative"}, None, 3, True), ({}, 3.0, 3, False), ({}, 3.0, -3, True), ({}, -2.0, 2, True)])
def test_swapped_views_are_distinguished_from_the_sign(facts, disparity, shift, swapped, tmp_path):
    write_store(tmp_path / "a.lmdb", shift=shift, facts=facts, disparity=disparity)
    found = states(verify(tmp_path))["views"]
    assert found.harmful == swapped
    assert ("left and right are swapped" in found.detail) == swapped


def test_a_wrong_axis(tmp_path):
    write_store(tmp_path / "a.lmdb", axis=0)
    found = states(verify(tmp_path / "a.lmdb"))["views"]
    assert found.harmful and "shifted along the rows in 3 of 3" in found.detail


def test_damage_is_found_and_the_tool_says_so(tmp_path):
    store = write_store(tmp_path / "a.lmdb")
    needle = store.read("scene_1", "left").tobytes()[:64]
    data = bytearray((tmp_path / "a.lmdb/data.mdb").read_bytes())
    data[data.index(needle) + 5] ^= 255
    del store
    shutil.move(tmp_path / "a.lmdb", tmp_path / "b.lmdb")
    (tmp_path / "b.lmdb/data.mdb").unlink()  # another file, which no open map shows
    (tmp_path / "b.lmdb/data.mdb").write_bytes(data)
    done = subprocess.run([sys.executable, str(TOOL), "data", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "BROKEN   b.lmdb frames" in done.stdout and "scene_1" in done.stdout and "1 to fix" in done.stdout


def test_no_store_is_one_error(tmp_path):
    with pytest.raises(DataError, match="expected a store"):
        verify(tmp_path)
    done = subprocess.run([sys.executable, str(TOOL), "data"], capture_output=True, text=True)
    assert done.returncode == 2 and "which store?" in done.stderr


def test_single_images_have_no_disparity(tmp_path):
    write_store(tmp_path / "a.lmdb", shift=0, facts={"single_image": True})
    assert states(verify(tmp_path / "a.lmdb"))["views"].state == "note"


def test_the_contact_sheet_colors_the_shift(tmp_path):
    sheets = {shift: contact_sheet(write_store(tmp_path / f"{shift}.lmdb", shift=shift)) for shift in (4, -4)}
    assert sheets[4].dtype == np.uint8 and sheets[4].shape[0] > 3 * 200 and sheets[4].shape[1] > 4 * 320
    red, blue = (sheet[:, -320:].astype(int) for sheet in sheets.values())
    assert (red[..., 0] - red[..., 2]).mean() > 30 and (blue[..., 2] - blue[..., 0]).mean() > 30


def test_the_contact_sheet_shows_the_blur_radius(tmp_path):
    frame = np.full((64, 96, 3), 30000, np.uint16)
    radius = np.broadcast_to(np.linspace(-3, 3, 96, dtype=np.float32), (64, 96)).copy()
    with StoreWriter(tmp_path / "a.lmdb", dataset="own", facts={"bit_depth": 16}) as writer:
        writer.add("a", {"left": frame, "right": frame, "defocus": radius})
        store = writer.finish()
    panel = contact_sheet(store)[30:, 2 * (320 + GAP):][:, :320].astype(int)
    near, focus, far = panel[100, 5], panel[100, 160], panel[100, 314]
    assert near[2] - near[0] > 100 and far[0] - far[2] > 100 and focus.min() > 240


def test_numbers_of_fewer_bits_than_their_frames(tmp_path):
    noise = np.random.default_rng(0).random((64, 96, 3))
    left = (gaussian_filter(noise, (1, 1, 0)) * 4095).astype(np.uint16)
    for name, facts, state in (("plain", {}, "broken"), ("scaled", {"full_scale": 4095, "bit_depth": 12}, None)):
        with StoreWriter(tmp_path / f"{name}.lmdb", dataset="own", facts={"bit_depth": 16, **facts}) as writer:
            writer.add("a", {"left": left, "right": np.roll(left, 2, 1)})
            writer.finish()
        found = states(verify(tmp_path / f"{name}.lmdb"))
        assert ("content" in found) == (state is not None)
        if state:
            assert found["content"].state == state and "--full-scale 4095" in found["content"].fix
