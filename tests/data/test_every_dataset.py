"""Every registered data set, stored or simulated, is asked the same questions."""
import pickle

import cv2
import numpy as np
import pytest
import torch

from k3dn_plugin.data.card import DatasetCard
from k3dn_plugin.data.loader import build_loader
from k3dn_plugin.data.sample import IMAGE_KEYS, MAP_KEYS, SampleIndex, collate
from k3dn_plugin.registry import DATASETS, check_arguments

CROP = (40, 48)


def photographs(folder, count=2):
    draw = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        coarse = draw.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(coarse, (140, 120)))
    return str(folder)


def depth_maps(folder, count=2):
    folder.mkdir()
    for i in range(count):
        depth = np.full((120, 140), 4000, np.uint16)
        depth[30:90, 40 + i:100] = 1500
        cv2.imwrite(str(folder / f"{i}.png"), depth)
    return str(folder)


def simulated(**settings):
    def spec(tmp_path, tiny_store):
        return {"type": "SimulatedDualPixelDataset", "photos": photographs(tmp_path / "photos"), "length": 5,
                "crop_size": list(CROP), "max_radius": 4.0, **settings}
    return spec


def with_depth(**settings):
    return lambda tmp_path, tiny_store: {**simulated(**settings)(tmp_path, tiny_store),
                                         "depth": depth_maps(tmp_path / "depth")}


# By name: the data set, and settings for one of its ways of working.
SPECS = {
    "stored": ("DualPixelDataset", lambda tmp_path, tiny_store: {
        "type": "DualPixelDataset", "store": str(tiny_store), "crop_size": list(CROP), "augment": "dp_safe"}),
    "simulated": ("SimulatedDualPixelDataset", simulated()),
    "simulated from a store": ("SimulatedDualPixelDataset", lambda tmp_path, tiny_store: {
        **simulated()(tmp_path, tiny_store), "photos": str(tiny_store)}),
    "simulated, distorted, 8 bits": ("SimulatedDualPixelDataset", simulated(distortion_share=1.0, bit_depth=8)),
    "simulated with depth": ("SimulatedDualPixelDataset", with_depth()),
    "simulated as RDPD": ("SimulatedDualPixelDataset", with_depth(mode="rdpd", bit_depth=8)),
    "simulated as DDDNet": ("SimulatedDualPixelDataset", with_depth(mode="dddnet", bit_depth=8)),
    # Any other says itself how to make a small one, as restorers do with `tiny_arguments`.
    **{name: (name, lambda tmp_path, tiny_store, name=name: {
        "type": name, "crop_size": list(CROP), **DATASETS.get(name).tiny_arguments(tmp_path)})
       for name in DATASETS.names() if hasattr(DATASETS.get(name), "tiny_arguments")},
}


@pytest.fixture(params=sorted(SPECS))
def spec(request, tmp_path, tiny_store):
    return SPECS[request.param][1](tmp_path, tiny_store)


@pytest.fixture
def dataset(spec):
    return DATASETS.build(spec)


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items())


def test_no_data_set_is_left_out():
    ours = {name for name in DATASETS.names() if DATASETS.get(name).__module__.startswith("k3dn_plugin.")}
    left_out = ours - {name for name, _ in SPECS.values()}
    assert not left_out, (f"{left_out}: needs a static method tiny_arguments(folder) that makes files in an empty "
                          "folder and gives the settings that go with them")


def test_a_sample_is_what_data_sets_give(dataset):
    sample = dataset[SampleIndex(0, 0)]
    assert set(sample) <= {"lq", "center", "gt", "name", "disparity", "defocus", "coc", "depth", "window"}
    for key in IMAGE_KEYS:
        image = sample[key]
        assert image.shape == (6 if key == "lq" else 3, *CROP) and image.dtype == torch.float32
        assert image.is_contiguous() and 0 <= float(image.min()) and float(image.max()) <= 1
    for key in MAP_KEYS:
        assert (key in sample) == (key in dataset.card.maps)
        if key in sample:
            assert sample[key].shape == (1, *CROP) and sample[key].dtype == torch.float32
            assert sample[key].isfinite().all()
    assert isinstance(sample["name"], str)


def test_the_card_says_what_the_samples_are(dataset):
    card = dataset.card
    assert isinstance(card, DatasetCard) and card.name and card.disparity_axis == "x" and card.truth
    sample = dataset[SampleIndex(0, 1)]
    numbers = sample["lq"].double() * (2 ** card.bit_depth - 1)
    assert float((numbers - numbers.round()).abs().max()) < 0.01
    if card.center == "mean":
        torch.testing.assert_close(sample["center"], (sample["lq"][:3] + sample["lq"][3:]) / 2)
    assert all(unit.startswith("px") for unit in card.maps.values())


def test_a_sample_depends_on_seed_epoch_and_index_alone(dataset, spec):
    other = pickle.loads(pickle.dumps(DATASETS.build(spec)))
    for epoch, index in ((0, 0), (1, -1), (7, 1)):
        torch.manual_seed(epoch)
        np.random.seed(epoch)
        other[SampleIndex(5, 2)]
        assert same(dataset[SampleIndex(epoch, index)], other[SampleIndex(epoch, index)])
    first = dataset[SampleIndex(0, 1)]
    changed = [dataset[SampleIndex(1, 1)]["gt"], DATASETS.build({**spec, "seed": 1})[SampleIndex(0, 1)]["gt"]]
    assert not any(torch.equal(first["gt"], image) for image in changed)


def test_a_sample_does_not_depend_on_the_number_of_threads(dataset):
    threads = torch.get_num_threads()
    try:
        samples = []
        for number in (1, 2):
            torch.set_num_threads(number)
            samples.append([dataset[SampleIndex(0, i)] for i in range(3)])
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(same(one, other) for one, other in zip(*samples))


def test_a_plain_index_draws_the_epoch_from_torchs_generator(dataset):
    torch.manual_seed(5)
    samples = [dataset[1] for _ in range(3)]
    torch.manual_seed(5)
    assert same(samples[0], dataset[1])
    assert not all(torch.equal(samples[0]["gt"], s["gt"]) for s in samples[1:])


def test_indices_end_where_the_data_set_does(dataset):
    assert same(dataset[SampleIndex(2, -1)], dataset[SampleIndex(2, len(dataset) - 1)])
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[SampleIndex(0, index)]


def test_a_schedule_may_ask_for_another_crop(dataset):
    sample = dataset[SampleIndex(0, 0, (36, 32))]
    assert sample["lq"].shape == (6, 36, 32) and sample["gt"].shape == (3, 36, 32)


def test_samples_make_batches_in_any_number_of_workers(dataset):
    assert collate([dataset[SampleIndex(0, i)] for i in range(2)])["lq"].shape == (2, 6, *CROP)
    batches = [list(build_loader(dataset, batch_size=2, total_iterations=2, num_workers=workers, seed=3))
               for workers in (0, 1)]
    for one, other in zip(*batches):
        assert one["name"] == other["name"] and torch.equal(one["lq"], other["lq"])


def test_an_option_file_may_name_it(spec):
    check_arguments(DATASETS, spec, path="datasets.train")


def test_a_fixed_simulated_set_has_the_same_scenes_in_every_epoch(tmp_path, tiny_store):
    dataset = DATASETS.build({**simulated(fixed=True)(tmp_path, tiny_store)})
    state = torch.get_rng_state()
    assert same(dataset[1], dataset[SampleIndex(9, 1)]) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(dataset[0]["gt"], dataset[1]["gt"])
