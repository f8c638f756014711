"""mmengine's own Runner trains, validates, saves and resumes our network on our data."""
import pytest
from mmengine.runner import Runner

import k3dn_plugin.bridges.mmengine as bridge
from k3dn_plugin.registry import ARCHS


@pytest.fixture
def make_runner(tiny_store, tmp_path):
    bridge.mirror_into_mmengine()
    network = {"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}

    def make(iterations, resume=False):
        loader = {"dataset": {"type": "DualPixelDataset", "store": str(tiny_store), "crop_size": [48, 48],
                              "augment": "dp_safe"},
                  "batch_size": 2, "num_workers": 0, "collate_fn": {"type": "default_collate"},
                  "sampler": {"type": "InfiniteSampler", "shuffle": True}}
        validation = {**loader, "dataset": {"type": "DualPixelDataset", "store": str(tiny_store)},
                      "batch_size": 1, "sampler": {"type": "DefaultSampler", "shuffle": False}}
        return Runner(
            model={"type": "RestorationModel", "network": network,
                   "losses": {"pixel": {"type": "L1Loss"}, "reblur": {"type": "ReblurConsistency", "weight": 0.5}},
                   "reblur": {"type": "KernelSetReblur"}},
            work_dir=str(tmp_path), train_dataloader=loader,
            train_cfg={"by_epoch": False, "max_iters": iterations, "val_interval": 2},
            optim_wrapper={"type": "OptimWrapper", "optimizer": {"type": "Adam", "lr": 1e-3}},
            val_dataloader=validation, val_cfg={"type": "ValLoop"},
            val_evaluator={"type": "RestorationMetric", "metric": "psnr"},
            default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False},
                           "logger": {"type": "LoggerHook", "interval": 1}},
            randomness={"seed": 0}, resume=resume, experiment_name=f"run{iterations}")
    return make


def test_runner_trains_validates_and_resumes(make_runner, tmp_path):
    runner = make_runner(2)
    runner.train()
    scores = runner.message_hub.get_scalar("val/k3dn/psnr").current()
    assert 0 < scores < 100
    assert (tmp_path / "iter_2.pth").is_file()
    again = make_runner(4, resume=True)
    again.train()
    assert again.iter == 4 and (tmp_path / "iter_4.pth").is_file()
