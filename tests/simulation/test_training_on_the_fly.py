"""An option file may name the simulated data set under datasets.train; a resumed run sees the same scenes."""
import cv2
import numpy as np
import pytest
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.options import load_options
from k3dn_plugin.training import train
from k3dn_plugin.training.state import state_files
from k3dn_plugin.zoo.weights import read_weights

RECIPE = """
name: on_the_fly
manual_seed: 3
num_threads: 1
datasets:
  train:
    type: SimulatedDualPixelDataset
    photos: {photos}
    length: 6
    crop_size: [32, 40]
    max_radius: 4.0
    families: [half_disc, translating_disc]
    batch_size_per_gpu: 2
    num_worker_per_gpu: 1
network_g: {{type: DPDNet{arguments}}}
path: {{experiments_root: {folder}}}
train:
  total_iter: 4
  optim_g: {{type: AdamW, lr: 1e-3}}
  scheduler: {{type: Constant}}
  losses: {{pixel: {{type: L1Loss}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 1, keep_checkpoints: 9, use_tb_logger: false}}
"""


@pytest.fixture
def recipe(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(photos / "a.png"), cv2.resize(coarse, (96, 80)))

    from k3dn_plugin.registry import ARCHS
    tiny = "".join(f", {key}: {value}" for key, value in ARCHS.get("DPDNet").tiny_arguments.items())
    path = tmp_path / "on_the_fly.yml"
    path.write_text(RECIPE.format(photos=photos, folder=tmp_path / "experiments", arguments=tiny))
    return path


def test_a_run_trains_and_resumes_to_the_same_bits(recipe):
    options = load_options(recipe)
    result = train(options, device="cpu", quiet=True)
    assert result.finished and result.samples_seen == 8
    whole = read_weights(result.last_weights).state
    for state in state_files(result.folder / "states")[:2]:
        state.unlink()  # as if it had been killed half-way
    result.last_weights.unlink()
    resumed = train(options, resume="auto", device="cpu", quiet=True)
    again = read_weights(resumed.last_weights).state
    assert resumed.samples_seen == 8 and all(torch.equal(again[key], whole[key]) for key in whole)


def test_wrong_arguments_are_refused_before_anything_is_simulated(recipe):
    with pytest.raises(OptionError, match="max_radios.*Did you mean 'max_radius'"):
        load_options(recipe, ["datasets.train.max_radios=3"])
    with pytest.raises(OptionError, match="families"):
        load_options(recipe, ["datasets.train.families=half_disc"])
    with pytest.raises(OptionError, match="quarter of frames"):
        train(load_options(recipe, ["datasets.train.max_radius=20"]), device="cpu", quiet=True)
    with pytest.raises(OptionError, match="no PSF family 'disk'"):
        train(load_options(recipe, ["datasets.train.families=[disk]"]), device="cpu", quiet=True)
    with pytest.raises(OptionError, match="mode rdpd .* need pictures with depth"):
        train(load_options(recipe, ["datasets.train.mode=rdpd"]), device="cpu", quiet=True)
