"""The training graph: predictions, losses, frozen parts; precision and processes."""
import dataclasses

import pytest
import tiny_training_parts
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.losses.pixel import L1Loss
from k3dn_plugin.training.distributed import ProcessGroup, launched
from k3dn_plugin.training.graph import TrainingGraph, in_float32, parameters_behind
from k3dn_plugin.training.optim import Precision

CPU = torch.device("cpu")


class MeanReblur(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, sharp, guidance):
        assert "restored" in guidance.prediction and guidance.restorer is not None
        return {"center": sharp * self.gain}


@pytest.fixture
def batch():
    pairs = tiny_training_parts.TinyPairs(length=2)
    return {key: torch.stack([pairs[0][key], pairs[1][key]]) for key in ("lq", "center", "gt")}


def test_losses_come_one_by_one(batch):
    graph = TrainingGraph(tiny_training_parts.TinyRestorer(), reblur=MeanReblur(), losses={
        "pixel": L1Loss(), "reblur": L1Loss(weight=0.5, predicted="reblurred.center", target="center")})
    losses = graph(batch)
    assert list(losses) == ["pixel", "reblur"]
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in graph.trained_parameters())
    assert len(graph.trained_parameters()) == 7


def test_parameters_behind_a_loss(batch):
    restorer = tiny_training_parts.TinyRestorer(refine=True)
    graph = TrainingGraph(restorer, losses={"pixel": L1Loss(predicted="half")})
    reached = parameters_behind(sum(graph(batch).values()))
    assert {name for name, p in restorer.named_parameters() if p not in reached} == {"refine.weight", "refine.bias"}


def test_patterns_freeze_the_rest(batch):
    restorer = tiny_training_parts.TinyRestorer(refine=True, dropout=0.0)
    graph = TrainingGraph(restorer, reblur=MeanReblur(), losses={"pixel": L1Loss()},
                          trainable=["refine.*", "reblur.*"])
    assert len(graph.trained_parameters()) == 3
    statistics = restorer.norm.running_mean.clone()
    graph.train()
    assert restorer.training and not restorer.norm.training
    graph(batch)
    assert torch.equal(restorer.norm.running_mean, statistics)
    trained = TrainingGraph(tiny_training_parts.TinyRestorer(), losses={}, trainable=["norm.*"]).train()
    assert trained.restorer.norm.training


def test_losses_see_float32_under_autocast(batch):
    seen = []

    class Look(torch.nn.Module):
        def forward(self, prediction, batch):
            seen.append(prediction["restored"].dtype)
            return (prediction["restored"] - batch["gt"]).abs().mean()

    graph = TrainingGraph(tiny_training_parts.TinyRestorer(), losses={"look": Look()})
    with Precision("bfloat16", CPU).autocast():
        # A convolution's output is half precision; the image that is added to it raises the sum.
        assert graph.restorer.last(torch.ones(1, 4, 8, 8)).dtype == torch.bfloat16
        assert graph.predict(batch)["restored"].dtype == torch.float32
        loss = graph(batch)["look"]
    assert seen == [torch.float32] and loss.dtype == torch.float32

    class Half(tiny_training_parts.TinyRestorer):
        def restore(self, views):
            return super().restore(views).bfloat16()

    graph = TrainingGraph(Half(), losses={"look": Look()})
    assert graph.predict(batch)["restored"].dtype == torch.bfloat16
    assert graph(batch)["look"].dtype == torch.float32 and seen == [torch.float32] * 2


def test_volumes_are_convolved_in_float32_under_autocast_on_the_cpu():
    volume, image = torch.rand(1, 2, 4, 5, 6), torch.rand(1, 2, 5, 6)
    convolutions = [torch.nn.Conv3d(2, 3, 3), torch.nn.ConvTranspose3d(2, 3, 2)]
    with Precision("bfloat16", CPU).autocast():
        assert torch.nn.Conv2d(2, 3, 3)(image).dtype == torch.bfloat16
        outputs = [convolution(volume.bfloat16()) for convolution in convolutions]
        outputs.append(torch.nn.functional.conv3d(volume, convolutions[0].weight, bias=convolutions[0].bias))
        assert (image @ image.mT).dtype == torch.bfloat16, "autocast goes on behind them"
    assert [output.dtype for output in outputs] == [torch.float32] * 3
    for _ in range(3):
        sum(output.square().mean() for output in outputs).backward(retain_graph=True)
    assert convolutions[0].weight.grad.dtype == torch.float32


def test_in_float32_looks_inside():
    @dataclasses.dataclass(frozen=True)
    class Feature:
        vectors: torch.Tensor
        grid: tuple

    half = torch.ones(1, dtype=torch.bfloat16)
    found = in_float32({"a": [half, 3], "b": Feature(half, (1, 2)), "c": torch.ones(1, dtype=torch.int64)})
    assert found["a"][0].dtype == found["b"].vectors.dtype == torch.float32
    assert found["a"][1] == 3 and found["b"].grid == (1, 2) and found["c"].dtype == torch.int64


def test_launchers_say_what_is_missing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    with launched("none", "cpu") as group:
        assert group == ProcessGroup(CPU) and group.is_main
    with pytest.raises(OptionError, match="RANK, WORLD_SIZE.*torchrun --nproc_per_node"):
        with launched("pytorch", "cpu"):
            pass
    with pytest.raises(OptionError, match="SLURM_PROCID is not set.*srun"):
        with launched("slurm", "cpu"):
            pass
    with pytest.raises(OptionError, match="expected none, pytorch or slurm"):
        with launched("torchrun", "cpu"):
            pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(OptionError, match="Add --launcher pytorch"):
        with launched("none", "cpu"):
            pass
