"""Norms that stand still, and norms whose statistics processes share: every kind that the restorers have."""
import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from k3dn_plugin.archs.dddnet_arch import Norm2d
from k3dn_plugin.archs.dmenet_arch import OffsetNorm
from k3dn_plugin.layers.frequency_split import VectorNorm
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.training import norms
from k3dn_plugin.training.graph import TrainingGraph
from k3dn_plugin.training.norms import SharedMoments, has_statistics, still_modules, synchronize_norms


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain, self.volume = nn.BatchNorm2d(4), nn.BatchNorm3d(4)
        self.switchable, self.offset, self.vector = Norm2d(4), OffsetNorm(4), VectorNorm(4)
        self.switchable.batch_statistics = True

    def training_outputs(self, batch):
        raise NotImplementedError


KINDS = ("plain", "volume", "switchable", "offset", "vector")


def test_processes_share_the_statistics_of_every_kind():
    model = Normed()
    before = {name: getattr(model, name) for name in KINDS}
    state = copy.deepcopy(model.state_dict())
    assert synchronize_norms(model) is model
    for name in KINDS:
        norm = getattr(model, name)
        assert norm is before[name], "a norm that is known elsewhere stays the same object"
        assert isinstance(norm, SharedMoments if name == "offset" else nn.SyncBatchNorm), name
    assert isinstance(model.switchable, Norm2d) and model.switchable.batch_statistics
    assert isinstance(model.vector, VectorNorm) and isinstance(model.offset, OffsetNorm)
    again = {name: type(getattr(model, name)) for name in KINDS}
    synchronize_norms(model)
    assert again == {name: type(getattr(model, name)) for name in KINDS}, "a second call changes nothing"
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    copied = copy.deepcopy(model)  # as the moving average does
    assert type(copied.plain) is type(model.plain) and copied.plain is not model.plain


def test_what_a_derived_norm_does_is_kept():
    x = torch.rand(2, 4, 5, 6)
    plain, shared = Normed().eval(), synchronize_norms(Normed()).eval()
    for name in ("plain", "switchable", "offset"):
        assert torch.equal(getattr(plain, name)(x), getattr(shared, name)(x)), name
    # DDDNet's norms use the image at hand in evaluation too, which running statistics of 0 and 1 would not.
    assert shared.switchable(x).mean().abs() < 1e-5 < shared.plain(x).mean().abs()


@pytest.mark.parametrize("kind", ["plain", "switchable"])
def test_in_training_torch_s_own_synchronized_norm_computes(kind, monkeypatch):
    seen = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: seen.append(type(self).__name__) or x)
    norm = getattr(synchronize_norms(Normed()), kind)
    norm(torch.rand(2, 4, 5, 6))
    assert len(seen) == 1 and seen[0].startswith("Synchronized")


def test_shared_moments_are_those_of_all_samples(monkeypatch):
    """Two processes, one after the other in place of at once: what each contributes is summed beforehand."""
    x = torch.rand(6, 4, 5, 3, dtype=torch.float64) * 3 + 100
    halves = [x[:2], x[2:]]
    plain = OffsetNorm(4).double()
    variance, mean = plain.moments(x)
    shares = [(len(half) * 15, *plain.moments(half)) for half in halves]
    sums = [torch.cat([sum(n * m for n, _, m in shares), torch.full((1,), 90.0, dtype=torch.float64)]),
            sum(n * (v + (m - mean).square()) for n, v, m in shares)]
    for half in halves:
        answers = iter(sums)
        monkeypatch.setattr(norms.dist, "all_reduce", lambda tensor, answers=answers: tensor.copy_(next(answers)))
        norm = OffsetNorm(4).double()
        synchronize_norms(norm)
        found = norm.moments(half)
        torch.testing.assert_close(found, (variance, mean), rtol=1e-12, atol=1e-12)


def test_a_norm_that_is_not_known_is_an_error():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(1))
    with pytest.raises(TypeError, match="Strange keeps running statistics"):
        synchronize_norms(nn.Sequential(Strange()))


def test_instance_norms_stay():
    norm = nn.InstanceNorm2d(3, track_running_stats=True)
    assert type(synchronize_norms(nn.Sequential(norm))[0]) is nn.InstanceNorm2d


@pytest.mark.parametrize("name", ARCHS.names())
def test_all_norms_of_a_restorer_are_known(name):
    cls = ARCHS.get(name)
    if not cls.__module__.startswith("k3dn_plugin."):
        pytest.skip("not ours")
    model = ARCHS.build({"type": name, **cls.tiny_arguments})
    count = sum(map(has_statistics, model.modules()))
    synchronize_norms(model)
    shared = sum(isinstance(part, (nn.SyncBatchNorm, SharedMoments)) for part in model.modules())
    tracked = sum(has_statistics(part) and isinstance(part, nn.modules.instancenorm._InstanceNorm)
                  for part in model.modules())
    assert shared + tracked == count
    assert not any(isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
                   for part in model.modules())


def test_frozen_norms_stand_still_of_every_kind_also_when_processes_share_them():
    model = Normed()
    graph = TrainingGraph(model, losses={}, trainable=["plain.*"])
    synchronize_norms(graph)
    graph.train()
    assert model.plain.training
    assert not any(getattr(model, name).training for name in KINDS if name != "plain")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["plain.weight", "plain.bias"]


def test_what_a_network_froze_itself_stays_frozen():
    model = Normed()
    model.volume.requires_grad_(False)     # frozen weights: statistics must not move
    model.vector.eval()                    # frozen statistics: its weights may move
    graph = TrainingGraph(model, losses={}, trainable=["*"]).train()
    assert not model.volume.training and not model.vector.training and model.plain.training
    assert not model.volume.weight.requires_grad and model.vector.weight.requires_grad
    assert len(graph.trained_parameters()) == 7
    # A network in evaluation mode as a whole is only about to be trained.
    assert still_modules(Normed().eval()) == []


def test_dddnet_keeps_the_parts_frozen_that_it_never_uses():
    model = ARCHS.build({"type": "DDDNet", **ARCHS.get("DDDNet").tiny_arguments})
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    TrainingGraph(model, losses={}, trainable=["*"])
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen


def test_volumes_keep_the_check_of_their_dimensions():
    model = ARCHS.build({"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments})
    volume = next(part for part in synchronize_norms(model).modules() if isinstance(part, nn.BatchNorm3d))
    with pytest.raises(ValueError, match="expected 5D input"):
        volume.eval()(torch.rand(2, volume.num_features, 5, 6))
