"""The keys that an option file may have, with their types and descriptions: BasicSR's vocabulary, every key checked.

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
    type: str = Field(description="registered name of the component")

    def arguments(self) -> dict[str, Any]:
        """Return `type` and constructor arguments, without the keys that the toolbox itself reads."""
        return {"type": self.type, **(self.model_extra or {})}


class DatasetOptions(_Component):
    """A data set and how it is loaded; other keys are arguments of the data set."""

    batch_size_per_gpu: int = Field(
        default=1, ge=1,
        description="samples that a device holds at a time; with `train.global_batch`, at most so many")
    num_worker_per_gpu: int = Field(
        default=0, ge=0, le=512,
        description="processes that read samples for each device; 0 reads in the training process. "
                    "The samples are the same whatever it is")
    prefetch_factor: int = Field(
        default=2, ge=1,
        description="batches that each worker keeps ready")
    pin_memory: bool = Field(
        default=True,
        description="copy batches to page-locked memory where training runs on a GPU")


class DatasetsOptions(_Keys):
    """The data sets of a run."""

    train: DatasetOptions | None = Field(default=None, description="what is trained on")
    val: DatasetOptions | None = Field(default=None, description="what validation scores; null: no validation")


class PathOptions(_Keys):
    """Where weights and states come from, and where results go."""

    pretrain_network_g: str | None = Field(
        default=None, description="weights that training starts from: a file of ours or a published checkpoint")
    strict_load_g: bool = Field(
        default=True,
        description="refuse pretrained weights with missing, unknown or misshapen keys; false reports and "
                    "leaves those out")
    experiments_root: str = Field(
        default="experiments", description="folder that gets one folder for each run, named by `name`")
    resume_state: str | None = Field(
        default=None, description="training state to go on from, where `--resume` names none")


class PhaseOptions(_Keys):
    """Part of a stage with a batch and a crop of its own (progressive training)."""

    iterations: int = Field(ge=1, description="length of the phase; all phases together are as long as the stage")
    global_batch: int = Field(ge=1, description="samples in an iteration, over all devices")
    batch_size_per_gpu: int | None = Field(
        default=None, ge=1,
        description="samples that a device holds at a time, at most; null: that of `datasets.train`")
    crop_size: int | list[int] | None = Field(
        default=None, description="rows and columns of a crop, or one number for both; null: that of `datasets.train`")


class StageOptions(_Keys):
    """One stage of training; keys left out are those of `train`."""

    name: str = Field(description="names the stage in the log, and its weights: models/<name>.safetensors")
    total_iter: int = Field(ge=1, description="length of the stage in iterations")
    trainable: list[str] | None = Field(
        default=None,
        description="patterns of the parameters that are trained (`preservation.*`; the reblur module's begin "
                    "with `reblur.`); the others are frozen, norms' statistics too. null: all")
    network_g: dict[str, Any] | None = Field(default=None, description="merged into the recipe's `network_g`")
    datasets_train: dict[str, Any] | None = Field(default=None, description="merged into `datasets.train`")
    optim_g: dict[str, Any] | None = Field(default=None, description="merged into `train.optim_g`")
    scheduler: dict[str, Any] | None = Field(default=None, description="merged into `train.scheduler`")
    losses: dict[str, dict[str, Any]] | None = Field(default=None, description="replaces `train.losses`")
    reblur: dict[str, Any] | None = Field(default=None, description="replaces `train.reblur`; null trains none")
    warmup_iter: int | None = Field(default=None, ge=0, description="replaces `train.warmup_iter`")
    ema_decay: float | None = Field(default=None, ge=0, lt=1, description="replaces `train.ema_decay`")
    grad_clip: float | None = Field(default=None, gt=0, description="replaces `train.grad_clip`; null does not clip")
    accumulate: int | None = Field(
        default=None, ge=1,
        description="replaces `train.accumulate`")
    global_batch: int | None = Field(
        default=None, ge=1,
        description="replaces `train.global_batch`; null leaves it open")
    phases: list[PhaseOptions] | None = Field(default=None, description="replaces `train.phases`")


class TrainOptions(_Keys):
    """How a network is trained."""

    total_iter: int = Field(ge=1, description="length of the run in iterations: optimizer steps, over all stages")
    optim_g: dict[str, Any] = Field(
        description="optimizer: `type`, a class of torch.optim, and its arguments (`lr`, `betas`, `weight_decay`, ...)")
    scheduler: dict[str, Any] = Field(
        default={"type": "Constant"},
        description="learning-rate schedule: `type` (Constant, CosineAnnealing, MultiStep, CosineAnnealingRestart, or "
                    "BasicSR's name) and its arguments, in iterations of the stage")
    losses: dict[str, dict[str, Any]] = Field(
        description="losses by names of one's own, each with `type`, `weight` and arguments; their sum is minimized")
    reblur: dict[str, Any] | None = Field(
        default=None,
        description="reblur module trained beside the network and thrown away afterwards: `type` and arguments")
    warmup_iter: int = Field(
        default=0, ge=0, description="iterations in which the learning rate rises in a straight line to its full value")
    ema_decay: float = Field(
        default=0.0, ge=0, lt=1,
        description="decay of the moving average of the weights, which is then what is validated and "
                    "published; lower in the first iterations of a stage; 0 keeps none")
    grad_clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient; null does not clip")
    accumulate: int = Field(
        default=1, ge=1,
        description="batches of a device in an iteration; computed where `global_batch` or `phases` are given")
    global_batch: int | None = Field(
        default=None, ge=1, description="samples in an iteration, shared out over devices and accumulated batches")
    phases: list[PhaseOptions] | None = Field(
        default=None, description="parts of a stage with their own batch and crop (progressive training)")
    amp: Literal["bfloat16", "float16"] | None = Field(
        default=None,
        description="mixed precision of the forward pass: bfloat16 (GPU and CPU) or float16 (GPU); null: float32")
    channels_last: bool = Field(
        default=False, description="keep the restorer's weights in channels-last order: the same losses but for "
                                   "rounding, and faster convolutions, most of all with `amp: bfloat16`")
    compile: bool = Field(default=False, description="compile the training graph with torch.compile")
    stages: list[StageOptions] | None = Field(
        default=None,
        description="parts of the run, one after the other, each starting from the weights of the one before; "
                    "their lengths add up to `total_iter`")


class ValOptions(_Keys):
    """How the network is scored while it trains."""

    val_freq: int = Field(
        default=5000, ge=1,
        description="iterations between validations; each stage ends with one, too")
    protocol: str = Field(
        default="dpdd16",
        description="evaluation protocol: bit depth, size handling, clamping and metrics. Its first metric "
                    "chooses models/best.safetensors")
    save_img: int = Field(default=4, ge=0, description="how many restored images each validation saves as pictures")
    tile: int | None = Field(
        default=None, ge=1,
        description="side of the tiles in which frames are restored; null: whole where memory allows")
    max_memory_gb: float | None = Field(
        default=None, gt=0,
        description="bound of the memory that restoring a frame may take, by tiles; null: what is free")


class LoggerOptions(_Keys):
    """What is written down, and how often."""

    print_freq: int = Field(
        default=100, ge=1,
        description="iterations between lines of the log and rows of metrics.csv")
    save_checkpoint_freq: int = Field(
        default=5000, ge=1,
        description="iterations between training states; stages end with one, and so does a stopped run")
    keep_checkpoints: int = Field(default=2, ge=1, description="how many of the newest training states are kept")
    use_tb_logger: bool = Field(default=True, description="write TensorBoard files to tb/")


class DistOptions(_Keys):
    """Training on several devices."""

    backend: Literal["nccl", "gloo"] = Field(
        default="nccl", description="communication between GPUs; processes on the CPU always use gloo")


class OptionKeys(_Keys):
    """The whole file, after inheritance and overrides."""

    name: str = Field(description="name of the run, and of its folder in `path.experiments_root`")
    manual_seed: int = Field(
        default=0, ge=0, le=2**62,
        description="seed of initial weights, dropout, order and random choices of the samples")
    custom_imports: list[str] = Field(
        default=[], description="modules of one's own that are imported first, because they register components")
    num_threads: int | None = Field(
        default=None, ge=1, le=1024, description="threads of torch on the CPU; null leaves torch's choice")
    datasets: DatasetsOptions = Field(default=DatasetsOptions(), description="what is trained on, and what is scored")
    network_g: dict[str, Any] = Field(
        description="the restorer: `type`, its registered name, and constructor arguments; parts are mappings too")
    path: PathOptions = Field(default=PathOptions(), description="where weights come from and results go")
    train: TrainOptions | None = Field(default=None, description="how the network is trained")
    val: ValOptions = Field(default=ValOptions(), description="how it is scored while it trains")
    logger: LoggerOptions = Field(default=LoggerOptions(), description="what is written down, and how often")
    dist_params: DistOptions = Field(default=DistOptions(), description="training on several devices")
