"""Our components in mmengine: mirrored into its root registries, and trained by its own `Runner`.

`RestorationModel` wraps a restorer and its losses as mmengine wants a model; `RestorationMetric` scores it.
Neither needs more than mmengine itself.
"""
import copyreg
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS

from k3dn_plugin.layers.torchvision_schemas import define_missing_operators
from k3dn_plugin.registry import ARCHS, DATASETS, LOSSES, METRICS, MODULES, ComponentRegistry
from k3dn_plugin.training.graph import TrainingGraph

if TYPE_CHECKING:
    from mmengine.optim import OptimWrapper  # imports torchvision, which needs its operators first

logger = logging.getLogger("k3dn_plugin")


class RestorationModel(BaseModel):
    """A restorer with its losses, as a model of mmengine's `Runner`.

    Args:
        network: a restorer's mapping with `type`.
        losses: name -> a loss's mapping with `type`.
        reblur: a reblur module's mapping, trained beside the restorer, or None.
        data_preprocessor: of mmengine; None moves batches to the device, no more.
    """

    def __init__(self, *, network: dict, losses: dict, reblur: dict | None = None,
                 data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        self.graph = TrainingGraph(ARCHS.build(network),
                                   losses={name: LOSSES.build(spec) for name, spec in losses.items()},
                                   reblur=MODULES.build(reblur) if reblur else None)

    def forward(self, lq: torch.Tensor, center: torch.Tensor | None = None, mode: str = "tensor", **batch: Any) -> Any:
        """Return losses by name, the restored images, or a list of {"restored", "gt", "name"}, by `mode`."""
        batch = {"lq": lq, "center": center, **batch}
        if mode == "loss":
            return {f"loss_{name}": value for name, value in self.graph(batch).items()}
        restored = self.graph.restorer(lq, center)
        if mode == "tensor":
            return restored
        truths = batch.get("gt", [None] * len(restored))
        return [{"restored": r, "gt": g, "name": n} for r, g, n in zip(restored, truths, batch["name"])]


    def train_step(self, data: dict, optim_wrapper: "OptimWrapper") -> dict[str, torch.Tensor]:
        """Run one batch, and count an iteration where the optimizer has stepped."""
        losses = super().train_step(data, optim_wrapper)
        if optim_wrapper.should_update():
            self.graph.restorer.after_iteration()
        return losses


class RestorationMetric(BaseMetric):
    """The mean of one of our metrics over a data set, in float on the unquantised output.

    Args:
        metric: its registered name.
        collect_device, prefix: of mmengine.
    """

    default_prefix = "k3dn"

    def __init__(self, *, metric: str = "psnr", collect_device: str = "cpu", prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.name = metric
        self.metric = METRICS.build({"type": metric})

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Score the predictions of one batch."""
        self.results += [self.metric(sample["restored"].clamp(0, 1), sample["gt"]) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Return the mean by the metric's name."""
        return {self.name: sum(results) / len(results)}


def mirror_into_mmengine() -> None:
    """Mirror restorers, modules and losses into `MODELS`, data sets and metrics into their roots.

    A name that is taken there is mirrored as `K3DN_<name>`, with a warning.
    """
    # mmengine's Runner reports torchvision's version, and stops where it does not import.
    define_missing_operators()
    for source, target in ((ARCHS, ROOT_MODELS), (MODULES, ROOT_MODELS), (LOSSES, ROOT_MODELS),
                           (DATASETS, ROOT_DATASETS), (METRICS, ROOT_METRICS)):
        def mirror(_: ComponentRegistry, name: str, component: Any, target: Any = target) -> None:
            if name in target.module_dict:
                if target.module_dict[name] is component:
                    return
                logger.warning("mmengine's %s has a %s already; ours is K3DN_%s there", target.name, name, name)
                name = f"K3DN_{name}"
            if name not in target.module_dict:
                target.register_module(name=name, module=component)
        for name in source.names():
            mirror(source, name, source.get(name))
        source.listeners.append(mirror)
    for target, component in ((ROOT_MODELS, RestorationModel), (ROOT_METRICS, RestorationMetric)):
        if component.__name__ not in target.module_dict:
            target.register_module(module=component)
    allow_resume()


def allow_resume() -> None:
    """Let mmengine 0.10.7 resume on torch >= 2.6, whose `torch.load` admits no unknown classes.

    Its message hub's histories are pickled with bound methods, which no safe list should admit. Reduced to their
    numbers they need the class alone. So what was saved while this bridge was loaded can be resumed.
    """
    copyreg.pickle(HistoryBuffer, _reduced_history)
    if hasattr(torch.serialization, "add_safe_globals"):
        # The hub also keeps single numbers as NumPy scalars, which are data and nothing else.
        scalar: Any = np.float64(0).__reduce__()[0]
        torch.serialization.add_safe_globals([HistoryBuffer, scalar, np.dtype, *(
            type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_))])


def _reduced_history(history: HistoryBuffer) -> tuple[type, tuple[list[float], list[float], int]]:
    values, counts = history.data
    return HistoryBuffer, (values.tolist(), counts.tolist(), history.max_length)
