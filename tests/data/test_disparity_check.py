import miniatures
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from k3dn_plugin.data.disparity_check import measure_disparity, tile_shifts
from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.preparation import prepare


def texture(size=(256, 384)):
    return gaussian_filter(np.random.default_rng(0).random((*size, 3)), (1, 1, 0)) * 60000


@pytest.mark.parametrize("columns, rows", [(3.0, 0.0), (-2.0, 0.0), (1.5, 0.5), (0.0, -4.0)])
def test_a_known_shift_is_measured_with_its_sign(columns, rows):
    left = texture()
    measured = measure_disparity(left, shift(left, (rows, columns, 0), mode="wrap"))
    assert measured.columns == pytest.approx([columns] * 3, abs=0.4)
    assert measured.rows == pytest.approx([rows] * 3, abs=0.4)
    assert measured.is_vertical == (rows == -4)


def test_what_cannot_be_measured_is_none():
    draw = np.random.default_rng(0)
    assert measure_disparity(draw.random((256, 256, 3)), draw.random((256, 256, 3))) is None
    assert measure_disparity(np.zeros((256, 256, 3)), np.zeros((256, 256, 3))) is None


def test_preparing_tells_the_shift_and_a_wrong_axis(tmp_path):
    scene = texture().astype(np.uint16)
    for folder, axis in (("right", 1), ("wrong", 0)):
        write_image(tmp_path / folder / "left" / "a.png", scene)
        write_image(tmp_path / folder / "right" / "a.png", np.roll(scene, 4, axis))
    summary = prepare("pairs", tmp_path / "right", tmp_path / "1")[0].summary()
    assert "+4.0 to +4.0 px along the columns" in summary and "warning" not in summary
    assert "shifted along the rows" in prepare("pairs", tmp_path / "wrong", tmp_path / "2")[0].summary()
    miniatures.pairs(tmp_path / "noise")
    assert "warning" not in prepare("pairs", tmp_path / "noise", tmp_path / "3")[0].summary()


def test_frames_too_small_to_measure():
    for shape in ((1, 1, 3), (1, 300, 3), (15, 15, 3)):
        frame = np.random.default_rng(0).random(shape)
        assert tile_shifts(frame, frame) == [] and measure_disparity(frame, frame) is None
