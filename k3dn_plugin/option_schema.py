"""The keys that an option file may have, with their types: BasicSR's vocabulary, every key checked.

Component arguments (`network_g`, `datasets.train`, losses, ...) are checked against the constructor of
the named component (`options.check_components`); everything else is declared here.
"""
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Keys(BaseModel):
    """A block of an option file: unknown keys are errors, types are strict."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=False)


class _Component(BaseModel):
    """A mapping with `type` and the component's own arguments, plus the keys declared here."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: str

    def arguments(self) -> dict:
        """`type` and constructor arguments, without the keys that the toolbox itself reads."""
        return {"type": self.type, **(self.model_extra or {})}


class DatasetOptions(_Component):
    """A data set and how it is loaded; other keys are arguments of the data set."""

    batch_size_per_gpu: int = Field(1, ge=1)
    num_worker_per_gpu: int = Field(0, ge=0)
    prefetch_factor: int = Field(2, ge=1)
    pin_memory: bool = True


class DatasetsOptions(_Keys):
    train: DatasetOptions | None = None
    val: DatasetOptions | None = None


class PathOptions(_Keys):
    pretrain_network_g: str | None = None
    strict_load_g: bool = True
    experiments_root: str = "experiments"
    resume_state: str | None = None


class PhaseOptions(_Keys):
    """Part of a stage with a batch and a crop of its own (progressive training)."""

    iterations: int = Field(ge=1)
    global_batch: int = Field(ge=1)
    batch_size_per_gpu: int | None = Field(None, ge=1)
    crop_size: int | list[int] | None = None


class StageOptions(_Keys):
    """One stage of training; keys left out are those of `train`."""

    name: str
    total_iter: int = Field(ge=1)
    trainable: list[str] | None = None
    network_g: dict[str, Any] | None = None
    datasets_train: dict[str, Any] | None = None
    optim_g: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    losses: dict[str, dict[str, Any]] | None = None
    reblur: dict[str, Any] | None = None
    warmup_iter: int | None = Field(None, ge=0)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    grad_clip: float | None = Field(None, gt=0)
    accumulate: int | None = Field(None, ge=1)
    global_batch: int | None = Field(None, ge=1)
    phases: list[PhaseOptions] | None = None


class TrainOptions(_Keys):
    total_iter: int = Field(ge=1)
    optim_g: dict[str, Any]
    scheduler: dict[str, Any] = {"type": "Constant"}
    losses: dict[str, dict[str, Any]]
    reblur: dict[str, Any] | None = None
    warmup_iter: int = Field(0, ge=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    grad_clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    global_batch: int | None = Field(None, ge=1)
    phases: list[PhaseOptions] | None = None
    amp: Literal["bfloat16", "float16"] | None = None
    compile: bool = False
    stages: list[StageOptions] | None = None


class ValOptions(_Keys):
    val_freq: int = Field(5000, ge=1)
    protocol: str = "dpdd16"
    save_img: int = Field(4, ge=0)
    tile: int | None = Field(None, ge=1)
    max_memory_gb: float | None = Field(None, gt=0)


class LoggerOptions(_Keys):
    print_freq: int = Field(100, ge=1)
    save_checkpoint_freq: int = Field(5000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    use_tb_logger: bool = True


class DistOptions(_Keys):
    backend: Literal["nccl", "gloo"] = "nccl"


class OptionKeys(_Keys):
    """The whole file, after inheritance and overrides."""

    name: str
    manual_seed: int = Field(0, ge=0)
    custom_imports: list[str] = []
    num_threads: int | None = Field(None, ge=1)
    datasets: DatasetsOptions = DatasetsOptions()
    network_g: dict[str, Any]
    path: PathOptions = PathOptions()
    train: TrainOptions | None = None
    val: ValOptions = ValOptions()
    logger: LoggerOptions = LoggerOptions()
    dist_params: DistOptions = DistOptions()
