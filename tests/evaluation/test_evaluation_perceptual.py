"""LPIPS and DISTS say what is missing; where a (stand-in) package is there they feed it as papers do."""
import importlib.util
import sys
import types

import pytest
import torch

from k3dn_plugin.errors import DependencyError
from k3dn_plugin.registry import METRICS

NAMES = ("lpips_alex", "lpips_squeeze", "dists")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder where torch looks for downloaded weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


class Network(torch.nn.Module):
    """Mean difference of what it is given, mapped to [-1, 1] if asked."""

    def __init__(self, load_weights=True, **settings):
        super().__init__()
        self.settings = settings
        self.alpha, self.beta = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))

    def forward(self, first, second, normalize=False):
        return (second - first).mean() * (2 if normalize else 1)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Stand-ins for the packages."""
    modules = {name: types.ModuleType(name) for name in ("lpips", "DISTS_pytorch")}
    modules["lpips"].LPIPS, modules["DISTS_pytorch"].DISTS = Network, Network
    modules["DISTS_pytorch"].__file__ = str(tmp_path / "DISTS_pytorch" / "__init__.py")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_are_named(name, hub, packages):
    metric = METRICS.build({"type": name})
    with pytest.raises(DependencyError, match=r"backbone weights .*\.pth.*Download https://.*\.pth"):
        metric(torch.rand(3, 64, 64), torch.rand(3, 64, 64))


@pytest.mark.parametrize("name", NAMES)
def test_missing_package_is_named(name, hub, monkeypatch):
    metric = METRICS.build({"type": name})
    if importlib.util.find_spec(metric.package):
        monkeypatch.setitem(sys.modules, metric.package, None)
    with pytest.raises(DependencyError, match=f"pip install {metric.pip_name} torchvision"):
        metric(torch.rand(3, 64, 64), torch.rand(3, 64, 64))


def test_lpips_gets_the_truth_first_and_normalised(hub, packages):
    metric = METRICS.build({"type": "lpips_alex"})
    (hub / metric.backbone).write_bytes(b"")
    gt, restored = torch.full((3, 64, 64), 0.25), torch.full((3, 64, 64), 0.5)
    assert metric(restored, gt) == pytest.approx(0.5)
    assert metric._network.settings == {"net": "alex", "version": "0.1", "verbose": False}
    assert not metric.higher_is_better


def test_dists_finds_its_own_weights(hub, packages, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))
    metric = METRICS.build({"type": "dists"})
    (hub / metric.backbone).write_bytes(b"")
    images = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
    with pytest.raises(DependencyError, match="without its weights.pt"):
        metric(*images)
    (tmp_path / "DISTS_pytorch").mkdir()
    torch.save({"alpha": torch.ones(1), "beta": torch.ones(1)}, tmp_path / "DISTS_pytorch" / "weights.pt")
    metric(*images)
    assert metric._network.alpha.item() == 1
