"""The published patch filters: their grid, their choice against a plain reference, and training on them."""
import cv2
import miniatures
import numpy as np
import pytest

from k3dn_plugin.data import StoreWriter
from k3dn_plugin.data.crop_sets import PUBLISHED, PatchFilter, sharpness
from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.images import write_image
from k3dn_plugin.data.preparation import prepare
from k3dn_plugin.data.sample import SampleIndex


def textured(size, seed=0):
    """Noise whose strength grows to the right."""
    draw = np.random.default_rng(seed)
    strength = np.linspace(0.02, 1, size[1])[None, :, None]
    return (30000 + 20000 * strength * draw.uniform(-1, 1, (*size, 3))).astype(np.uint16)


def test_the_published_grid():
    every = PatchFilter(512, 204).origins(np.zeros((1120, 1680, 1), np.uint16))
    assert sorted({row for row, _ in every}) == [0, 204, 408, 608]
    assert sorted({column for _, column in every}) == [0, 204, 408, 612, 816, 1020, 1168]
    assert len(every) == 28
    kept = PUBLISHED["train"]["dpdnet"].origins(textured((1120, 1680)))
    assert len(kept) == 20 and all(place in every for place in kept) and kept == sorted(kept)
    assert len(PUBLISHED["val"]["dpdnet"].origins(np.zeros((1120, 1680, 1), np.uint16))) == 12
    assert PUBLISHED["val"]["restormer"].origins(np.zeros((1120, 1680, 1), np.uint16)) == [[432, 712]]
    assert PUBLISHED["train"]["dpdnet"].origins(np.zeros((300, 1680, 1), np.uint16)) == []


def test_sharpness_against_the_formula_written_out():
    image = textured((96, 160))
    places = [[0, 0], [0, 64], [32, 96], [16, 30]]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scores = np.ones(len(places))
    for size in (3, 7, 11, 15):
        energies = []
        for row, column in places:
            patch = np.ascontiguousarray(grey[row:row + 64, column:column + 64])
            across, down = (cv2.Sobel(patch, cv2.CV_64F, *order, ksize=size) for order in ((1, 0), (0, 1)))
            energies.append(float(np.sqrt(across ** 2 + down ** 2).sum()))
        low, high = min(energies), max(energies)
        scores *= [(e - low) / (high - low) for e in energies]
    assert sharpness(image, places, 64) == pytest.approx(scores, rel=1e-9)
    assert sharpness(np.zeros_like(image), places, 64) == pytest.approx(np.ones(4))


def test_the_least_sharp_are_dropped():
    kept = PatchFilter(64, 32, 0.3).origins(textured((64, 384)))
    assert [column for _, column in kept] == [96, 128, 160, 192, 224, 256, 288, 320], "the flat left is dropped"


def test_a_store_keeps_origins_and_a_data_set_draws_from_them(tmp_path):
    source = tmp_path / "source"
    miniatures.dpdd(source, {"train": 1})
    for path in source.rglob("*.png"):
        shifted = np.roll(textured((520, 720)), 1 if "_L" in path.name else -1 if "_R" in path.name else 0, 1)
        write_image(path, shifted)
    store = prepare("dpdd", source, tmp_path / "out")[0].store
    assert set(store.manifest.facts["crop_sets"]) == {"dpdnet", "restormer"}
    origins = store.scene(store.names[0]).crops["dpdnet"]
    assert len(origins) == 6 - int(0.3 * 6)  # 2 rows x 3 columns, the floor of 30 % dropped
    dataset = DualPixelDataset(store=str(store.path), crops="dpdnet")
    assert len(dataset) == len(origins) and dataset[0]["lq"].shape == (6, 512, 512)
    row, column = origins[1]
    wanted = store.read(store.names[0], "sharp")[row:row + 512, column:column + 512].transpose(2, 0, 1) / 65535
    assert np.allclose(dataset[1]["gt"], wanted, atol=1e-6)
    smaller = DualPixelDataset(store=str(store.path), crops="dpdnet", crop_size=(64, 64), seed=3)
    one, two = (smaller[SampleIndex(epoch, 0)]["gt"] for epoch in (0, 1))
    assert one.shape == (3, 64, 64) and not np.array_equal(one, two)


def test_stores_of_small_frames_have_no_patches(tmp_path):
    with StoreWriter(tmp_path / "a.lmdb", dataset="a") as writer:
        frames = miniatures.frames(0)
        writer.add("a", frames, crops={"dpdnet": PUBLISHED["train"]["dpdnet"].origins(frames["sharp"])})
        assert writer.finish().scene("a").crops == {"dpdnet": []}
