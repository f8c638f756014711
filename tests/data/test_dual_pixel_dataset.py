import pickle

import numpy as np
import pytest
import torch

from k3dn_plugin.data import LmdbStore, StoreWriter
from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.sample import SampleIndex, collate
from k3dn_plugin.data.store.basicsr import export_basicsr
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.registry import DATASETS, check_arguments


def write(path, scenes, facts=None):
    with StoreWriter(path, dataset="made", facts=facts) as writer:
        for name, frames in scenes.items():
            crops = frames.pop("crops", None)
            writer.add(name, frames, crops=crops)
        writer.finish()
    return str(path)


def scene(size=(20, 30), views=("left", "right", "center", "sharp"), dtype=np.uint16, seed=0):
    draw = np.random.default_rng(seed)
    return {view: draw.integers(0, np.iinfo(dtype).max, (*size, 3), dtype, endpoint=True) for view in views}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items())


def test_a_whole_frame_is_what_is_stored(tiny_store):
    dataset = DATASETS.build({"type": "DualPixelDataset", "store": str(tiny_store)})
    store = LmdbStore(tiny_store)
    assert len(dataset) == 6
    sample = dataset[2]
    assert sample["name"] == "scene_002" and sorted(sample) == ["center", "gt", "lq", "name"]
    views = {"left": sample["lq"][:3], "right": sample["lq"][3:], "center": sample["center"],
             "sharp": sample["gt"]}
    for view, image in views.items():
        stored = store.read("scene_002", view).astype(np.float32) / np.float32(65535)
        assert image.dtype == torch.float32 and image.is_contiguous()
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), stored)
    with pytest.raises(IndexError):
        dataset[6]
    assert dataset[-1]["name"] == "scene_005"


def test_the_card(tiny_store):
    card = DualPixelDataset(store=str(tiny_store)).card
    assert (card.name, card.bit_depth, card.linear) == ("tiny", 16, False)
    assert (card.center, card.truth) == ("captured", True)
    assert card.hash == LmdbStore(tiny_store).hash
    assert DualPixelDataset(store=str(tiny_store), center="mean").card.center == "mean"


def test_tags_go_by_sample_name(tiny_store):
    dataset = DualPixelDataset(store=str(tiny_store))
    assert [dataset.tags(dataset[i]["name"])["place"] for i in range(2)] == ["outdoor", "indoor"]


# Random choices

@pytest.mark.parametrize("settings", [
    {"crop_size": (32, 48), "augment": "dp_safe"}, {"crop_size": 32, "augment": "legacy8"}, {"crop_size": 40},
    {"augment": "dp_safe"}, {}])
def test_a_sample_depends_on_seed_epoch_and_index_alone(tiny_store, settings):
    one, other = (DualPixelDataset(store=str(tiny_store), **settings) for _ in range(2))
    other = pickle.loads(pickle.dumps(other))
    for epoch in range(3):
        for index in range(len(one)):
            torch.manual_seed(epoch)
            other[SampleIndex(7, 1)]
            assert same(one[SampleIndex(epoch, index)], other[SampleIndex(epoch, index)])


@pytest.mark.parametrize("augment", ["none", "dp_safe", "legacy8"])
def test_a_crop_says_where_it_lies_in_its_frame(tmp_path, augment):
    """Pixels that hold their row and column, counted from the frame's corner as it is after the flips."""
    rows, columns = np.meshgrid(np.arange(20), np.arange(30), indexing="ij")
    frame = np.stack([rows, columns, 0 * rows], -1).astype(np.uint16)
    store = write(tmp_path / "s", {"a": {view: frame for view in ("left", "right", "sharp")}})
    dataset = DualPixelDataset(store=store, crop_size=8, augment=augment, seed=2)
    seen = set()
    for epoch in range(40):
        sample = dataset[SampleIndex(epoch, 0)]
        top, left, height, width = sample["window"].tolist()
        assert (height, width) in ((20, 30), (30, 20)) and sample["window"].dtype == torch.int64
        gt = (sample["gt"] * 65535).round().long()
        transposed = (height, width) == (30, 20)
        row, column = (gt[1], gt[0]) if transposed else (gt[0], gt[1])
        flipped = [bool(index[-1, -1] < index[0, 0]) for index in (row, column)]
        row, column = ((size - 1 - index) if flip else index
                       for index, flip, size in zip((row, column), flipped, (height, width)))
        assert torch.equal(row, (top + torch.arange(8))[:, None].expand(8, 8))
        assert torch.equal(column, (left + torch.arange(8)).expand(8, 8))
        seen.add((transposed, *flipped))
    assert len(seen) == {"none": 1, "dp_safe": 4, "legacy8": 8}[augment]
    assert "window" not in DualPixelDataset(store=store)[0]


def test_a_blur_radius_in_pixels_is_a_circle_of_confusion(tmp_path):
    frames = {**scene(views=("left", "right", "sharp")), "defocus": np.ones((20, 30), np.float32)}
    pixels = DualPixelDataset(store=write(tmp_path / "px", {"a": dict(frames)}))[0]
    assert torch.equal(pixels["coc"], pixels["defocus"])
    other = DualPixelDataset(store=write(tmp_path / "any", {"a": frames}, {"defocus_unit": "arbitrary scale"}))[0]
    assert "coc" not in other and "defocus" in other


def test_seed_epoch_and_repeat_change_the_choice(tiny_store):
    settings = {"store": str(tiny_store), "crop_size": 48, "augment": "dp_safe"}
    dataset = DualPixelDataset(**settings, repeat=2)
    first = dataset[SampleIndex(0, 1)]
    assert len(dataset) == 12 and dataset[SampleIndex(0, 7)]["name"] == first["name"]
    for other in (dataset[SampleIndex(1, 1)], dataset[SampleIndex(0, 7)],
                  DualPixelDataset(**settings, seed=1)[SampleIndex(0, 1)]):
        assert not same(first, other)


def test_a_plain_index_draws_from_torchs_generator_where_there_is_a_choice(tiny_store):
    random = DualPixelDataset(store=str(tiny_store), crop_size=48, augment="dp_safe")
    torch.manual_seed(5)
    samples = [random[1] for _ in range(2)]
    torch.manual_seed(5)
    assert same(samples[0], random[1]) and not same(samples[0], samples[1])
    fixed = DualPixelDataset(store=str(tiny_store))
    state = torch.get_rng_state()
    assert same(fixed[1], fixed[1]) and torch.equal(torch.get_rng_state(), state)


def test_crops_reach_every_place_and_no_further(tiny_store):
    dataset = DualPixelDataset(store=str(tiny_store), crop_size=(95, 110))
    frame = DualPixelDataset(store=str(tiny_store))[0]["gt"]
    seen = set()
    for epoch in range(200):
        crop = dataset[SampleIndex(epoch, 0)]["gt"]
        seen |= {(row, column) for row in range(2) for column in range(3)
                 if torch.equal(crop, frame[:, row:row + 95, column:column + 110])}
    assert len(seen) == 6


def test_all_images_of_a_sample_are_cropped_and_flipped_alike(tmp_path):
    """Frames that hold their own coordinates; the right view is marked, so that an exchange shows."""
    rows, columns = np.mgrid[:50, :60].astype(np.uint16)
    base = np.stack([rows, columns, np.zeros_like(rows)], -1)
    frames = {view: base + np.array([0, 0, mark], np.uint16)
              for view, mark in (("left", 1), ("right", 2), ("center", 3), ("sharp", 4))}
    frames |= {"disparity": (rows * 100 + columns).astype(np.float32),
               "defocus": (rows * 100 + columns).astype(np.float32)}
    dataset = DualPixelDataset(store=write(tmp_path / "a.lmdb", {"a": frames}), crop_size=(20, 30),
                               augment="dp_safe")
    kinds = set()
    for epoch in range(40):
        sample = dataset[SampleIndex(epoch, 0)]
        numbers = {key: sample[key] * 65535 for key in ("lq", "center", "gt")}
        place = numbers["gt"][:2]
        for image in (numbers["lq"][:3], numbers["lq"][3:], numbers["center"]):
            torch.testing.assert_close(image[:2], place)
        for key in ("disparity", "defocus"):
            torch.testing.assert_close(sample[key], (place[0] * 100 + place[1])[None], atol=0.01, rtol=0)
        marks = [round(float(image.mean())) for image in (numbers["lq"][2], numbers["lq"][5])]
        mirrored = bool(place[1, 0, 0] > place[1, 0, -1])
        assert marks == ([2, 1] if mirrored else [1, 2])
        kinds.add((mirrored, bool(place[0, 0, 0] > place[0, -1, 0])))
    assert len(kinds) == 4
    assert dataset.card.maps["disparity"].startswith("px")


def test_legacy8_leaves_maps_out_and_never_exchanges(tmp_path):
    frames = {view: np.full((20, 30, 3), mark, np.uint16) for view, mark in
              (("left", 1), ("right", 2), ("sharp", 3))} | {"disparity": np.ones((20, 30), np.float32)}
    path = write(tmp_path / "a.lmdb", {"a": frames})
    dataset = DualPixelDataset(store=path, crop_size=10, augment="legacy8")
    for epoch in range(16):
        sample = dataset[SampleIndex(epoch, 0)]
        assert "disparity" not in sample and float(sample["lq"][0, 0, 0] * 65535) == pytest.approx(1)


def test_a_schedule_may_ask_for_another_crop(tiny_store):
    dataset = DualPixelDataset(store=str(tiny_store), crop_size=32)
    assert dataset[SampleIndex(0, 0, (16, 24))]["lq"].shape == (6, 16, 24)
    with pytest.raises(DataError, match="scene 'scene_000'.*97 x 24.*96 x 112"):
        dataset[SampleIndex(0, 0, (97, 24))]


def test_a_crop_set_gives_its_patches(tmp_path):
    scenes = {"a": {**scene(), "crops": {"sharpest": [[0, 0], [8, 14]]}},
              "b": {**scene(seed=1), "crops": {"sharpest": [[2, 3]]}}, "c": scene(seed=2)}
    path = write(tmp_path / "a.lmdb", scenes, facts={"crop_sets": {"sharpest": {"size": [12, 16]}}})
    dataset, frames = DualPixelDataset(store=path, crops="sharpest"), DualPixelDataset(store=path)
    assert [dataset[i]["name"] for i in range(len(dataset))] == ["a#00", "a#01", "b#00"]
    assert torch.equal(dataset[1]["gt"], frames[0]["gt"][:, 8:20, 14:30])
    assert dataset.tags("a#01") == {}
    inside = DualPixelDataset(store=path, crops="sharpest", crop_size=8)[SampleIndex(0, 2)]["gt"]
    patch = frames[1]["gt"][:, 2:14, 3:19]
    assert any(torch.equal(inside, patch[:, r:r + 8, c:c + 8]) for r in range(5) for c in range(9))
    with pytest.raises(DataError, match="no crop set 'sharp'. Nearest: 'sharpest'"):
        DualPixelDataset(store=path, crops="sharp")
    with pytest.raises(DataError, match="does not fit in its patch of crop set 'sharpest' of 12 x 16"):
        DualPixelDataset(store=path, crops="sharpest", crop_size=14)


# Values and views

def test_eight_bits_float_gray_and_black_level(tmp_path):
    eight = DualPixelDataset(store=write(tmp_path / "8.lmdb", {"a": scene(dtype=np.uint8)}))
    assert float(eight[0]["lq"].max()) == 1 and eight.card.bit_depth == 8
    linear = np.random.default_rng(0).random((8, 9, 3)).astype(np.float32)
    views = dict.fromkeys(("left", "right", "sharp"), linear)
    floats = DualPixelDataset(store=write(tmp_path / "f.lmdb", {"a": views}))
    np.testing.assert_array_equal(floats[0]["gt"].permute(1, 2, 0).numpy(), linear)
    raw = np.array([1009, 1024, 17407], np.uint16).reshape(1, 3, 1)
    white = np.full((1, 3, 1), 65535, np.uint16)
    sensor = DualPixelDataset(store=write(
        tmp_path / "r.lmdb", {"a": {"left": raw, "right": raw, "sharp": white}},
        facts={"bit_depth": 14, "linear": True, "black_level": {"left": 1024, "right": 1024},
               "full_scale": {"left": 16383, "right": 16383}}))
    np.testing.assert_allclose(sensor[0]["lq"], np.broadcast_to([0, 0, 1], (6, 1, 3)))
    assert float(sensor[0]["gt"].min()) == 1 and (sensor.card.bit_depth, sensor.card.linear) == (14, True)


def test_center_is_the_mean_where_none_was_captured(tmp_path, tiny_store):
    sample = DualPixelDataset(store=str(tiny_store), center="mean")[0]
    torch.testing.assert_close(sample["center"], (sample["lq"][:3] + sample["lq"][3:]) / 2)
    path = write(tmp_path / "a.lmdb", {"a": scene(), "b": scene(views=("left", "right", "sharp"))})
    dataset = DualPixelDataset(store=path)
    assert dataset.card.center == "mean"
    torch.testing.assert_close(dataset[0]["center"], (dataset[0]["lq"][:3] + dataset[0]["lq"][3:]) / 2)


def test_a_set_without_truth_has_to_be_asked_for(tmp_path):
    path = write(tmp_path / "a.lmdb", {"a": scene(views=("left", "right"))})
    with pytest.raises(DataError, match="scene 'a' has no sharp view.*truth: false"):
        DualPixelDataset(store=path)
    dataset = DualPixelDataset(store=path, truth=False)
    assert "gt" not in dataset[0] and not dataset.card.truth


def test_basicsrs_layout_gives_the_same_samples(tiny_store, tmp_path):
    export_basicsr(LmdbStore(tiny_store), tmp_path)
    ours = DualPixelDataset(store=str(tiny_store), crop_size=(24, 32), augment="dp_safe")
    theirs = DualPixelDataset(store=str(tmp_path), crop_size=(24, 32), augment="dp_safe")
    assert all(same(ours[SampleIndex(1, i)], theirs[SampleIndex(1, i)]) for i in range(6))


# What is refused

def test_a_missing_view_is_named(tmp_path):
    path = write(tmp_path / "a.lmdb", {"a": scene(), "b": scene(views=("left", "center", "sharp"))})
    with pytest.raises(DataError, match="scene 'b' has no right view, only center, left, sharp"):
        DualPixelDataset(store=path)


def test_a_crop_larger_than_a_frame_is_named(tmp_path):
    path = write(tmp_path / "a.lmdb", {"a": scene(), "b": scene((19, 40))})
    with pytest.raises(DataError, match="scene 'b': a crop of 20 x 30 .rows x columns. does not fit in its "
                                        "frame of 19 x 40"):
        DualPixelDataset(store=path, crop_size=(20, 30))


def test_vertical_disparity_is_refused(tmp_path):
    path = write(tmp_path / "a.lmdb", {"a": scene()}, facts={"disparity_axis": "y"})
    with pytest.raises(DataError, match="shifted along 'y', expected 'x'"):
        DualPixelDataset(store=path)


def test_legacy8_wants_squares(tiny_store):
    for crop in ((32, 48), None):
        with pytest.raises(OptionError, match="crops must be square"):
            DualPixelDataset(store=str(tiny_store), crop_size=crop, augment="legacy8")


@pytest.mark.parametrize("change, message", [
    ({"augment": "rotate"}, "augment: expected one of 'none', 'dp_safe', 'legacy8', found 'rotate'"),
    ({"crop_sise": 3}, "crop_sise.*Did you mean 'crop_size'"), ({"crop_size": "big"}, "crop_size: expected")])
def test_options_are_checked_before_anything_is_opened(change, message):
    with pytest.raises(OptionError, match=message):
        check_arguments(DATASETS, {"type": "DualPixelDataset", "store": "nowhere", **change}, path="train")


def test_option_files_give_lists(tiny_store):
    spec = {"type": "DualPixelDataset", "store": str(tiny_store), "crop_size": [32, 48]}
    assert DATASETS.build(spec).crop_size == (32, 48)
    with pytest.raises(OptionError, match="at least 1"):
        DATASETS.build({**spec, "repeat": 0})


def test_a_batch_of_different_sizes_names_the_samples(tmp_path):
    dataset = DualPixelDataset(store=write(tmp_path / "a.lmdb", {"a": scene(), "b": scene((19, 40))}))
    with pytest.raises(DataError, match="lq of a is .6, 20, 30., of b .6, 19, 40..*crop_size"):
        collate([dataset[0], dataset[1]])
    batch = collate([dataset[0], dataset[0]])
    assert batch["lq"].shape == (2, 6, 20, 30) and batch["name"] == ["a", "a"]
