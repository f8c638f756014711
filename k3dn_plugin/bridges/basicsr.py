"""The bridge to BasicSR: makes it importable on today's PyTorch and mirrors our components into it.

    import k3dn_plugin.bridges.basicsr                 # before `import basicsr`
    python -m k3dn_plugin.bridges.basicsr train -opt some_basicsr_recipe.yml

Importing this file registers everything in BasicSR's and mmengine's registries, and whatever is registered
later, too. A name that BasicSR has already (`L1Loss`) is mirrored as `L1Loss_k3dn`. This is the only file that
knows basicsr.

What is fixed, without touching the installed packages: basicsr 1.4.2 imports
`torchvision.transforms.functional_tensor`, which torchvision 0.17 renamed; and torchvision's CUDA build, the
only one on PyPI, expects two operators whose schemas a CPU build of torch lacks.
"""
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from k3dn_plugin.bridges.mmengine import mirror_into_mmengine
from k3dn_plugin.errors import DependencyError, run_tool
from k3dn_plugin.layers.torchvision_schemas import define_missing_operators
from k3dn_plugin.registry import (
    ARCHS,
    DATASETS,
    LOSSES,
    METRICS,
    MODULES,
    PROTOCOLS,
    ComponentRegistry,
    check_arguments,
)

SUFFIX = "_k3dn"
# Keys that BasicSR puts into a data set's options for itself.
BASICSR_DATASET_KEYS = ("name", "type", "phase", "scale", "io_backend", "dataset_enlarge_ratio",
                        "batch_size_per_gpu", "num_worker_per_gpu", "use_shuffle", "prefetch_mode",
                        "pin_memory", "persistent_workers", "num_prefetch_queue")


def make_importable() -> None:
    """Fix what keeps torchvision and basicsr from importing; harmless where nothing is broken."""
    define_missing_operators()
    name = "torchvision.transforms.functional_tensor"
    if name not in sys.modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            renamed = importlib.import_module("torchvision.transforms._functional_tensor")
            sys.modules[name] = renamed


def basicsr_registries() -> ModuleType | None:
    """Return BasicSR's registries, or None where it is not installed.

    Raises:
        DependencyError: it is installed but broken.
    """
    if importlib.util.find_spec("basicsr") is None:
        return None
    try:
        make_importable()
        importlib.import_module("basicsr")
        return importlib.import_module("basicsr.utils.registry")
    except Exception as error:
        raise DependencyError(
            f"basicsr is installed but does not import ({type(error).__name__}: {error}). Tested: basicsr 1.4.2, "
            "torch 2.13.0, torchvision 0.28.0; see requirements/pinned.txt") from error


def mirror_into_basicsr(registries: ModuleType) -> None:
    """Mirror every component, now and when registered later."""
    targets = [(ARCHS, registries.ARCH_REGISTRY, lambda name, cls: cls),
               (MODULES, registries.ARCH_REGISTRY, lambda name, cls: cls),
               (LOSSES, registries.LOSS_REGISTRY, basicsr_loss),
               (DATASETS, registries.DATASET_REGISTRY, basicsr_dataset),
               (METRICS, registries.METRIC_REGISTRY, basicsr_metric)]
    for source, target, adapt in targets:
        def mirror(_: ComponentRegistry, name: str, component: Any, target: Any = target,
                   adapt: Callable[[str, Any], Any] = adapt) -> None:
            mirrored = name if name not in target else name + SUFFIX
            if mirrored not in target:
                target._do_register(mirrored, adapt(name, component))
        for name in source.names():
            mirror(source, name, source.get(name))
        source.listeners.append(mirror)


def basicsr_dataset(name: str, cls: Any) -> type:
    """Return a class that BasicSR can build from its option mapping; samples get the `lq_path` that it names by."""
    class BasicSRDataset(cls):
        def __init__(self, opt: Mapping[str, Any]) -> None:
            own = {k: v for k, v in opt.items() if k not in BASICSR_DATASET_KEYS}
            # Through the registry, so that a misspelt option is reported here as anywhere.
            _, arguments = check_arguments(DATASETS, {"type": name, **own}, path=opt.get("name", "dataset"))
            super().__init__(**arguments)
            self.opt = opt

        def __getitem__(self, index: int) -> dict[str, Any]:
            sample = super().__getitem__(index)
            return {**sample, "lq_path": sample["name"]}
    # Workers that are spawned find the class by this name.
    BasicSRDataset.__name__ = BasicSRDataset.__qualname__ = f"BasicSR{name}"
    setattr(sys.modules[__name__], BasicSRDataset.__name__, BasicSRDataset)
    return BasicSRDataset


def basicsr_loss(name: str, cls: Any) -> Callable[..., torch.nn.Module]:
    """Return a loss that BasicSR can build and call as `loss(pred, target)`, with its argument `loss_weight`."""
    def build(loss_weight: float = 1.0, **arguments: Any) -> torch.nn.Module:
        return _BasicSRLoss(LOSSES.build({"type": name, "weight": loss_weight, **arguments}))
    build.__name__ = name
    return build


class _BasicSRLoss(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, predicted: torch.Tensor, target: torch.Tensor, weight: Any = None) -> torch.Tensor:
        return self.loss({"restored": predicted}, {"gt": target})


def basicsr_metric(name: str, cls: Any) -> Callable[..., float]:
    """Return a function that BasicSR can call with (H, W, 3) uint8 BGR images."""
    def score(img: np.ndarray, img2: np.ndarray, **settings: Any) -> float:
        images = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1) / 255 for i in (img, img2)]
        return METRICS.build({"type": name, **settings})(*images)
    score.__name__ = name
    return score


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m k3dn_plugin.bridges.basicsr train -opt FILE`: BasicSR's own `train_pipeline`, with our components."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in ("train", "test"):
        print("usage: python -m k3dn_plugin.bridges.basicsr {train,test} -opt FILE [BasicSR's other arguments]",
              file=sys.stderr)
        return 2
    if basicsr_registries() is None:
        raise DependencyError("basicsr is not installed (it needs Python < 3.13): pip install cython torchvision, "
                              "then pip install --no-build-isolation basicsr==1.4.2")
    # BasicSR reads sys.argv itself and writes its experiments below the folder that it is given.
    sys.argv = [f"basicsr {argv[0]}", *argv[1:]]
    pipeline = importlib.import_module(f"basicsr.{argv[0]}")
    getattr(pipeline, f"{argv[0]}_pipeline")(".")
    return 0


def _connect() -> None:
    registries = basicsr_registries()
    for registry in (ARCHS, MODULES, LOSSES, DATASETS, METRICS, PROTOCOLS):
        registry.load()
    mirror_into_mmengine()
    if registries is not None:
        mirror_into_basicsr(registries)


if __name__ == "__main__":
    # `python -m` runs a second copy of this file; the registries must be filled by one.
    from k3dn_plugin.bridges import basicsr as bridge
    raise SystemExit(run_tool(bridge.main))

_connect()
