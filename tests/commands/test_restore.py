"""`k3dn restore` as people use it: progress, strength, before and after, what the files say beside their pixels."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_evaluation_parts import EvaluationConv

from k3dn_plugin.commands import main
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.zoo.weights import save_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def weights(tmp_path):
    import torch
    torch.manual_seed(1)
    save_weights(tmp_path / "conv.safetensors", EvaluationConv(), network_g={"type": "EvaluationConv"}, provenance={})
    return tmp_path / "conv.safetensors"


def smooth(seed=0, size=(128, 200)):
    """A picture with texture of some pixels, in uint8."""
    import cv2
    noise = np.random.default_rng(seed).random((*size, 3), np.float32)
    picture = cv2.GaussianBlur(noise, None, 1.5)
    picture = (picture - picture.min()) / np.ptp(picture)
    return np.round(picture * 255).astype(np.uint8)


@pytest.fixture
def call(tmp_path, weights, capsys):
    """Restores in.png's views: `call(left, right, *arguments)` -> (status, stdout, stderr)."""
    def run(left, right, *arguments, out="o.png"):
        for name, view in (("l", left), ("r", right)):
            if view is not None:
                write_image(tmp_path / f"{name}.png", view)
        try:
            status = main(["restore", "--left", str(tmp_path / "l.png"), "--right", str(tmp_path / "r.png"), "-o",
                           str(tmp_path / out), "--weights", str(weights), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()
    return run


LEFT, RIGHT = np.roll(smooth(), -2, 1), np.roll(smooth(), 2, 1)


def test_strength_mixes_input_and_output(call, tmp_path):
    results = {}
    for strength in (0, 0.25, 1):
        assert call(LEFT, RIGHT, "--strength", strength, "--bits", 16)[0] == 0
        results[strength] = read_image(tmp_path / "o.png").astype(float)
    mean = (LEFT.astype(float) + RIGHT) / 2 * 257
    assert np.abs(results[0] - mean).max() <= 1 and np.abs(results[1] - mean).max() > 500
    inside = (results[1] > 0) & (results[1] < 65535)   # elsewhere the result was clamped
    mixed = 0.75 * mean + 0.25 * results[1]
    assert np.abs(results[0.25] - mixed)[inside].max() <= 2
    status, _, err = call(LEFT, RIGHT, "--strength", 1.5)
    assert status == 2 and "--strength" in err and "1.5" in err


def test_preview_and_page_lie_beside_the_result(call, tmp_path):
    status, out, err = call(LEFT, RIGHT, "--preview", "--html", out="sub/o.png")
    assert status == 0 and err == ""
    assert f"look at {tmp_path / 'sub' / 'o_preview.jpg'}" in out and f"look at {tmp_path / 'sub' / 'o.html'}" in out
    assert read_image(tmp_path / "sub" / "o_preview.jpg").shape[1] == 2 * 200 + 6
    page = (tmp_path / "sub" / "o.html").read_text(encoding="utf-8")
    assert "200 x 128 pixels" in page and "EvaluationConv" in page


@pytest.mark.parametrize("views, words", [
    ((smooth(), smooth()), "hold the same pixels, so there is no disparity"),
    ((smooth(), np.clip(smooth().astype(int) + np.random.default_rng(3).integers(-2, 3, (128, 200, 3)), 0, 255
                        ).astype(np.uint8)), "show no disparity"),
    ((LEFT, RIGHT), None),
    ((smooth(1), smooth(2)), None)])
def test_a_pair_without_disparity_is_said_so_in_one_line(views, words, call):
    status, _, err = call(*views)
    assert status == 0 and (words is None) == (err == "")
    if words:
        assert words in err and err.count("\n") == 1 and err.startswith("note: ")


def test_the_bar_is_shown_where_asked_for_alone(call):
    assert call(LEFT, RIGHT, "--tile", 64)[2] == ""
    status, out, err = call(LEFT, RIGHT, "--tile", 64, "--progress")
    assert status == 0 and "file 1 of 1" in err and "tile" in err and "left" in err and "tiles of 64 x 64" in out
    assert "\r" not in out


def test_it_says_where_the_picture_came_from(call, tmp_path):
    exif = Image.Exif()
    exif[0x112], exif[272] = 6, "a camera"
    for name, model in (("l", "left"), ("c", "center")):
        exif[271] = model
        Image.fromarray(LEFT).save(tmp_path / f"{name}.png", exif=exif)
    for arguments, maker in (((), "left"), (("--center", tmp_path / "c.png"), "center")):
        assert call(None, RIGHT, *arguments, "--bits", 16, "--preview")[0] == 0
        with Image.open(tmp_path / "o.png") as shown:
            assert (shown.getexif()[271], shown.getexif()[0x112], shown.size) == (maker, 6, (200, 128))
        # Where nobody reads the orientation, the picture itself stands upright.
        assert read_image(tmp_path / "o_preview.jpg").shape[1] == 2 * 128 + 6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a POSIX shell does")
def test_closed_streams_do_not_stop_restoring(tmp_path, weights):
    for name, view in (("l", LEFT), ("r", RIGHT)):
        write_image(tmp_path / f"{name}.png", view)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import tiny_evaluation_parts; " \
           "from k3dn_plugin.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(ROOT / "tests" / "helpers"), "restore", "--left", "l.png", "--right",
               "r.png", "-o", "o.png", "--weights", str(weights), "--tile", "64", "--progress"]
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command], cwd=tmp_path, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
    assert done.returncode == 0 and "o.png: 8 bit" in done.stdout
    assert read_image(tmp_path / "o.png").shape == LEFT.shape


@pytest.mark.parametrize("flag, view", [("--preview", "o_preview.jpg"), ("--html", "o.html")])
def test_what_is_written_beside_the_result_overwrites_no_input(tmp_path, weights, capsys, flag, view):
    Image.fromarray(LEFT).save(tmp_path / view, "PNG")
    write_image(tmp_path / "r.png", RIGHT)
    before = (tmp_path / view).read_bytes()
    assert main(["restore", "--left", str(tmp_path / view), "--right", str(tmp_path / "r.png"), "-o",
                 str(tmp_path / "o.png"), "--weights", str(weights), flag]) == 2
    assert "one of the inputs" in capsys.readouterr().err and (tmp_path / view).read_bytes() == before


@pytest.mark.parametrize("corner", ["lt", "rb"])
def test_a_result_overwrites_no_file_of_a_set(tmp_path, weights, capsys, corner):
    for number, name in enumerate(("lt", "rt", "lb", "rb")):
        write_image(tmp_path / f"{name}.png", smooth(number))
    before = (tmp_path / f"{corner}.png").read_bytes()
    assert main(["restore", str(tmp_path / "lt.png"), "-o", str(tmp_path / f"{corner}.png"), "--weights",
                 str(weights)]) == 2
    assert "one of the inputs" in capsys.readouterr().err
    assert (tmp_path / f"{corner}.png").read_bytes() == before


@pytest.mark.parametrize("flag, name", [("--preview", "o_preview.jpg"), ("--html", "o.html")])
def test_a_place_that_cannot_be_written_is_told_before_restoring(call, tmp_path, flag, name):
    (tmp_path / name).mkdir()
    status, _, err = call(LEFT, RIGHT, flag)
    assert status == 2 and name in err and not (tmp_path / "o.png").exists()
