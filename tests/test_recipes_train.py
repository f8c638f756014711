"""Every option file trains, validates, saves and resumes: its own losses and stages, a tiny network, tiny data."""
import copy
from pathlib import Path

import pytest
import torch
import yaml

from k3dn_plugin.layers.adaptive_filter import filter_channels
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.training import train
from k3dn_plugin.training.state import state_files
from k3dn_plugin.zoo.weights import read_weights

FOLDER = Path(__file__).resolve().parents[1] / "options"
RECIPES = sorted(p.name for p in FOLDER.glob("*.yml"))
STEPS = 2  # a stage


def tiny_network(network_g):
    """The recipe's restorer at the size of the tests, with the parts that the recipe chooses."""
    tiny = copy.deepcopy(network_g)
    for key, value in ARCHS.get(network_g["type"]).tiny_arguments.items():
        chosen = network_g.get(key)
        if isinstance(chosen, dict) and isinstance(value, dict) and chosen["type"] != value["type"]:
            continue
        tiny[key] = value
    if isinstance(tiny.get("window"), int):
        tiny["window"] = 32
    return tiny


def tiny_recipe(name, store, folder):
    """The option file as it is, but for size, length and data."""
    options = load_options(FOLDER / name).as_dict()
    options["network_g"] = tiny_network(options["network_g"])
    restorer = ARCHS.build(options["network_g"])
    crop = list(restorer.size_rule.padded(32, 32))
    options["datasets"] = {
        "train": {**options["datasets"]["train"], **source_of(options["datasets"]["train"], store), "crop_size": crop,
                  "num_worker_per_gpu": 0, "batch_size_per_gpu": 1},
        "val": {**options["datasets"]["val"], **source_of(options["datasets"]["val"], store)}}
    training = options["train"]
    stages = training.get("stages") or [training]
    for stage in stages:
        stage["total_iter"] = STEPS
        stage["warmup_iter"] = 1
        if stage.get("global_batch"):
            stage["global_batch"] = 2
        if stage.get("phases"):
            stage["phases"] = [{**phase, "iterations": 1, "global_batch": 2, "batch_size_per_gpu": 1,
                                "crop_size": crop} for phase in stage["phases"][:STEPS]]
        if (stage.get("datasets_train") or {}).get("max_radius"):
            stage["datasets_train"]["max_radius"] = 4.0
        if stage.get("network_g"):
            stage["network_g"] = {key: value for key, value in stage["network_g"].items()
                                  if value is None or key not in restorer.tiny_arguments}
    training["total_iter"] = STEPS * len(stages)
    if training.get("global_batch"):
        training["global_batch"] = 2
    if (training.get("reblur") or {}).get("type") == "FilterReblur":
        training["reblur"]["filters"] = filter_channels(restorer.iterations, restorer.channels, restorer.kernel_size)
        training["reblur"]["iterations"] = 2
    options["val"] = {**options["val"], "val_freq": training["total_iter"], "save_img": 1}
    options["logger"] = {**options["logger"], "print_freq": 1, "save_checkpoint_freq": 1,
                         "keep_checkpoints": training["total_iter"], "use_tb_logger": False}
    options["path"] = {**options["path"], "experiments_root": str(folder)}
    options["num_threads"] = 1
    path = folder / name
    path.write_text(yaml.safe_dump(plain(options)), encoding="utf-8")
    return load_options(path)


def source_of(section, store):
    """The tiny store, or what a simulated data set takes in place of it: its sharp frames, and less blur."""
    if section["type"] != "SimulatedDualPixelDataset":
        return {"store": str(store)}
    return {"photographs": str(store), "max_radius": 4.0, "length": 4,
            **({"crop_size": [48, 48]} if section.get("fixed")
                                                                         else {})}


def plain(value):
    """Without tuples and unset keys, as YAML would hold it."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_validates_saves_and_resumes(name, tiny_store, tmp_path):
    options = tiny_recipe(name, tiny_store, tmp_path)
    result = train(options, device="cpu", quiet=True)
    assert result.finished and result.scores["psnr"] > 0
    assert all(value == value for row in result.history for value in row.values() if isinstance(value, float))
    whole = read_weights(result.last_weights).state
    states = state_files(result.folder / "states")
    assert len(states) == result.iterations
    states[0].unlink()  # as if it had been killed one iteration before the end
    result.last_weights.unlink()
    resumed = train(options, resume="auto", device="cpu", quiet=True)
    assert resumed.iterations == result.iterations and resumed.samples_seen == result.samples_seen
    again = read_weights(resumed.last_weights).state
    assert again.keys() == whole.keys() and all(torch.equal(again[key], whole[key]) for key in whole)
