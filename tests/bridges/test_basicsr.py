"""BasicSR's own pipeline trains our network on our data; its registries hold our components."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from k3dn_plugin.registry import ARCHS

pytestmark = pytest.mark.skipif(find_spec("basicsr") is None, reason="basicsr is not installed")
ROOT = Path(__file__).resolve().parents[2]

RECIPE = """
name: basicsr_k3dn
model_type: SRModel
num_gpu: 0
manual_seed: 0
scale: 1
datasets:
  train:
    name: tiny
    type: DualPixelDataset
    store: {store}
    crop_size: [48, 48]
    augment: dp_safe
    use_shuffle: true
    num_worker_per_gpu: 1
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 2
    prefetch_mode: ~
  val: {{name: tinyval, type: DualPixelDataset, store: {store}}}
network_g: {network}
path: {{pretrain_network_g: ~, strict_load_g: true, resume_state: ~}}
train:
  ema_decay: 0.9
  optim_g: {{type: Adam, lr: !!float 1e-3, betas: [0.9, 0.99]}}
  scheduler: {{type: MultiStepLR, milestones: [100], gamma: 0.5}}
  total_iter: 4
  warmup_iter: -1
  pixel_opt: {{type: L1Loss, loss_weight: 1.0, reduction: mean}}
val:
  val_freq: 4
  save_img: false
  metrics: {{psnr: {{type: calculate_psnr, crop_border: 0, test_y_channel: false}}, own: {{type: psnr}}}}
logger: {{print_freq: 2, save_checkpoint_freq: 4, use_tb_logger: false, wandb: {{project: ~, resume_id: ~}}}}
dist_params: {{backend: gloo, port: 29500}}
"""


def run(folder, *arguments):
    return subprocess.run([sys.executable, "-m", "k3dn_plugin.bridges.basicsr", *arguments], cwd=folder,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True)


def test_basicsr_trains_and_validates(tiny_store, tmp_path):
    network = {"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(RECIPE.format(store=tiny_store, network=yaml.safe_dump(network, default_flow_style=True)))
    done = run(tmp_path, "train", "-opt", str(recipe))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    log = next((tmp_path / "experiments" / "basicsr_k3dn").glob("train_*.log")).read_text()
    assert "iter:       4" in log and "l_pix" in log and "own" in log
    assert (tmp_path / "experiments" / "basicsr_k3dn" / "models" / "net_g_4.pth").is_file()


def test_a_misspelt_data_option_is_named(tiny_store, tmp_path):
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(RECIPE.format(store=tiny_store, network="{type: K3DN}")
                      .replace("crop_size: [48", "crop_siz: [48"))
    done = run(tmp_path, "train", "-opt", str(recipe))
    assert done.returncode == 2 and "Did you mean 'crop_size'" in done.stderr


def test_usage_without_a_command():
    assert run(".", "evaluate").returncode == 2


def test_every_component_is_mirrored():
    import k3dn_plugin.bridges.basicsr  # noqa: F401
    # isort: split
    from basicsr.utils import registry as basicsr

    from k3dn_plugin.registry import DATASETS, LOSSES, METRICS, MODULES
    for ours, theirs in ((ARCHS, basicsr.ARCH_REGISTRY), (MODULES, basicsr.ARCH_REGISTRY),
                         (LOSSES, basicsr.LOSS_REGISTRY), (DATASETS, basicsr.DATASET_REGISTRY),
                         (METRICS, basicsr.METRIC_REGISTRY)):
        for name in ours.names():
            assert name in theirs or f"{name}_k3dn" in theirs
    # BasicSR's own keep their names.
    assert basicsr.LOSS_REGISTRY.get("L1Loss").__module__.startswith("basicsr")


def test_what_is_registered_later_is_mirrored_too():
    import k3dn_plugin.bridges.basicsr  # noqa: F401
    # isort: split
    from basicsr.utils.registry import ARCH_REGISTRY
    from mmengine.registry import MODELS

    @ARCHS.register_module(name="RegisteredLate")
    class RegisteredLate:
        pass
    assert ARCH_REGISTRY.get("RegisteredLate") is RegisteredLate
    assert MODELS.get("RegisteredLate") is RegisteredLate


def test_mirrored_losses_and_metrics_have_basicsr_calls():
    import k3dn_plugin.bridges.basicsr  # noqa: F401
    # isort: split
    import torch
    from basicsr.losses import build_loss
    from basicsr.metrics import calculate_metric
    loss = build_loss({"type": "EdgeLoss", "loss_weight": 2.0})
    one, other = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    assert loss(one, other).item() == pytest.approx(
        2 * build_loss({"type": "EdgeLoss"})(one, other).item())
    images = {"img": np.zeros((16, 16, 3), np.uint8), "img2": np.full((16, 16, 3), 51, np.uint8)}
    assert calculate_metric(images, {"type": "psnr"}) == pytest.approx(10 * np.log10(25), rel=1e-6)
