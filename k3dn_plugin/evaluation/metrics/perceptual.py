"""Perceptual distances, LPIPS and DISTS, by their authors' packages.

Both need a backbone that was trained on ImageNet, which their packages do not contain and torchvision
downloads. Nothing is downloaded behind the user's back: without the file the error says how to get it.
"""
import os
import sys
import warnings
from abc import abstractmethod
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from k3dn_plugin.errors import DependencyError
from k3dn_plugin.evaluation.metrics.base import Metric
from k3dn_plugin.layers.torchvision_schemas import define_missing_operators
from k3dn_plugin.registry import METRICS

DOWNLOAD = "https://download.pytorch.org/models/"


class PerceptualDistance(Metric):
    """A distance between the features of two images, by a package and a backbone that are loaded once.

    Raises:
        DependencyError: the package is not installed, or the backbone's weights are not there.
    """

    higher_is_better = False
    package = pip_name = backbone = ""

    def __init__(self) -> None:
        self._network = None

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> float:
        """Return the distance of one image."""
        if self._network is None:
            self._network = self.load(self._module()).eval()
        network = self._network.to(gt.device)
        with torch.no_grad():
            return float(self.distance(network, gt.float()[None], restored.float()[None]))

    @abstractmethod
    def load(self, module: ModuleType) -> nn.Module:
        """The network of the imported package."""

    @abstractmethod
    def distance(self, network: nn.Module, gt: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
        """The distance of two images (1, 3, H, W) in [0, 1]."""

    def _module(self) -> ModuleType:
        found = Path(torch.hub.get_dir()) / "checkpoints" / self.backbone
        define_missing_operators()
        try:
            module = import_module(self.package)
        except Exception as error:  # a torchvision built for another torch fails in many ways
            raise DependencyError(
                f"this metric needs the packages {self.pip_name} and torchvision, and importing them failed: "
                f"{error}. Install them to fit torch {torch.__version__}: pip install {self.pip_name} "
                "torchvision (for a CPU build of torch: --index-url https://download.pytorch.org/whl/cpu)"
            ) from None
        if not found.is_file():
            raise DependencyError(f"this metric needs the backbone weights {self.backbone}, expected at "
                                  f"{found}. Download {DOWNLOAD}{self.backbone} to there, on any machine")
        return module


class LPIPS(PerceptualDistance):
    """Learned perceptual distance (Zhang et al., CVPR 2018), version 0.1, images mapped to [-1, 1].

    Truth first, restored second, in RGB, as Restormer's, IFAN's and DRBNet's scripts do.
    """

    package = pip_name = "lpips"
    net = ""

    def load(self, module: ModuleType) -> nn.Module:
        """Return the package's network."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision, about how the package asks for its backbone
            return module.LPIPS(net=self.net, version="0.1", verbose=False)

    def distance(self, network: nn.Module, gt: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
        """Return the distance of two images (1, 3, H, W)."""
        return network(gt, restored, normalize=True)


@METRICS.register_module(name="lpips_alex")
class LPIPSAlex(LPIPS):
    """LPIPS with AlexNet: what papers on DPDD report."""

    net, backbone = "alex", "alexnet-owt-7be5be79.pth"


@METRICS.register_module(name="lpips_squeeze")
class LPIPSSqueeze(LPIPS):
    """LPIPS with SqueezeNet (BAMBNet's choice, though it feeds BGR)."""

    net, backbone = "squeeze", "squeezenet1_1-b8a52dc0.pth"


@METRICS.register_module(name="dists")
class DISTS(PerceptualDistance):
    """Deep image structure and texture similarity (Ding et al., TPAMI 2020), VGG16, as a distance."""

    package, pip_name, backbone = "DISTS_pytorch", "DISTS-pytorch", "vgg16-397923af.pth"

    def load(self, module: ModuleType) -> nn.Module:
        """Return the package's network."""
        own = Path(sys.prefix) / "weights.pt"
        beside = Path(str(module.__file__)).parent / "weights.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if own.is_file():
                return module.DISTS()
            # The package looks for its own weights in the interpreter's folder alone, where some installers
            # do not put them.
            network = module.DISTS(load_weights=False)
        if not beside.is_file():
            raise DependencyError("DISTS-pytorch is installed without its weights.pt (looked in "
                                  f"{own.parent} and {beside.parent}); install it again: "
                                  "pip install --force-reinstall DISTS-pytorch")
        weights = torch.load(os.fspath(beside), map_location="cpu", weights_only=True)
        network.alpha.data, network.beta.data = weights["alpha"], weights["beta"]
        return network

    def distance(self, network: nn.Module, gt: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
        """Return the distance of two images (1, 3, H, W)."""
        return network(gt, restored)
