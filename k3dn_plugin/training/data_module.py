"""The data of a run: its data sets, opened once, and the loader of each stage."""
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from k3dn_plugin.data.loader import SampleLoader, build_loader
from k3dn_plugin.evaluation.provenance import data_hash
from k3dn_plugin.options import Options
from k3dn_plugin.registry import DATASETS
from k3dn_plugin.training import randomness
from k3dn_plugin.training.distributed import ProcessGroup
from k3dn_plugin.training.stages import Stage, share_stage


class DataModule:
    """Data sets and loaders.

    All data sets are opened at once, so that a missing folder is reported before anything is built.

    Args:
        options: of the run.
        plan: its `Stage`s.
        group: this process's `ProcessGroup`.

    Raises:
        DataError: a store is missing or damaged; the message gives the ways on.
        OptionError: a global batch cannot be shared evenly by so many processes.
    """

    def __init__(self, options: Options, plan: Sequence[Stage], group: ProcessGroup):
        for stage in plan:
            share_stage(stage, group.size)  # a batch that cannot be shared out is reported first
        self._seed = options.manual_seed
        self._group = group
        self._sets = []
        self._hashes: list[str] | None = None
        self._train = {stage.index: self._open(self._seeded(stage.dataset.arguments())) for stage in plan}
        validation = options.datasets.val
        self.validation = None if validation is None else self._open(validation.arguments())

    def training(self, stage: Stage) -> Dataset:
        """Return the training set of `stage`."""
        return self._train[stage.index]

    def hashes(self) -> list[str]:
        """Return what identifies the training data of each stage; with a question mark where that is not sure."""
        if self._hashes is None:
            # Once, and without a trace: a data set of one's own may have to be read for it, and draw random numbers.
            with randomness.preserved(self._group.device):
                self._hashes = [data_hash(self._train[index]) for index in sorted(self._train)]
        return self._hashes

    def batches(self, stage: Stage, iteration: int) -> SampleLoader:
        """Return the batches of `stage` from its `iteration` (0: from its beginning) to its end."""
        loading = stage.dataset
        return build_loader(
            self._train[stage.index],
            phases=share_stage(stage, self._group.size),
            num_workers=loading.num_worker_per_gpu, prefetch_factor=loading.prefetch_factor,
            pin_memory=loading.pin_memory and self._group.device.type == "cuda",
            # A stage sees another order than the one before it.
            seed=self._seed + stage.index, start_iteration=iteration,
            rank=self._group.rank, world_size=self._group.size)

    def _seeded(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """`spec` with the run's seed for the samples' random choices, where it gives none itself."""
        takes_seed = "seed" in inspect.signature(DATASETS.get(spec["type"])).parameters
        return {**({"seed": self._seed} if takes_seed else {}), **spec}

    def _open(self, spec: Mapping[str, Any]) -> Any:
        for known, dataset in self._sets:
            if known == spec:
                return dataset
        self._sets.append((spec, DATASETS.build(spec)))
        return self._sets[-1][1]
