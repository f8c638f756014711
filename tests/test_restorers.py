"""The same questions for every registered restorer. A new one is found here without an edit."""
import copy

import pytest
import torch

from k3dn_plugin.archs.card import RestorerCard
from k3dn_plugin.errors import SizeError
from k3dn_plugin.registry import ARCHS

# Registered by other tests, to be built in their own way.
NAMES = [n for n in ARCHS.names() if ARCHS.get(n).__module__.startswith("k3dn_plugin.")]


def build(name):
    torch.manual_seed(0)
    cls = ARCHS.get(name)
    return ARCHS.build({"type": name, **cls.tiny_arguments})


@pytest.fixture(params=NAMES)
def restorer(request):
    model = build(request.param)
    # Some published initialisations are zeros that hide a path from its gradient; training leaves them at once.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def make_pair(height, width, batch=1):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, 6, height, width, generator=generator)


def test_card_is_complete(restorer):
    card = restorer.card
    assert isinstance(card, RestorerCard)
    assert card.title and card.paper and card.year > 2000 and card.venue and card.official_license
    assert restorer.size_rule.accepts(*restorer.size_rule.padded(1, 1))


@pytest.mark.parametrize("height, width, batch", [(50, 70, 1), (33, 129, 2), (7, 5, 1)])
def test_any_size_and_batch(restorer, height, width, batch):
    with torch.inference_mode():
        restored = restorer(make_pair(height, width, batch))
    assert restored.shape == (batch, 3, height, width)
    assert restored.isfinite().all()


def test_batch_entries_do_not_mix(restorer):
    pair = make_pair(64, 64, 2)
    with torch.inference_mode():
        together, alone = restorer(pair), restorer(pair[1:])
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)


def test_declared_size_rule_is_the_true_one(restorer):
    height, width = restorer.size_rule.padded(1, 1)
    for size in ((height, width), (height + restorer.size_rule.multiple[0], width)):
        views = restorer.network_input(make_pair(*size), None)
        with torch.inference_mode():
            assert restorer.restore(views).shape[-2:] == size


def test_wrong_shapes_are_reported(restorer):
    with pytest.raises(SizeError, match="expected .B, 6, H, W."):
        restorer(torch.rand(1, 3, 64, 64))
    with pytest.raises(SizeError, match="center"):
        restorer(make_pair(64, 64), torch.rand(1, 3, 64, 60))


def test_gradients_reach_every_parameter(restorer):
    restorer.train()
    pair = make_pair(64, 64, 2)
    batch = {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": pair[:, :3],
             "name": ["a", "b"]}
    if restorer.card.recurrent:
        # Only a sequence has a frame that remembers another.
        batch = {k: torch.stack([v, v], 1) if torch.is_tensor(v) else v for k, v in batch.items()}
    prediction = restorer.training_outputs(batch)
    assert prediction["restored"].shape == batch["gt"].shape
    total = sum((leaf.float() ** 2).mean() for leaf in leaves(prediction))
    total.backward()
    dead = [name for name, p in restorer.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert not dead, f"no gradient reaches {dead[:5]} ({len(dead)} in all)"


def leaves(value):
    if torch.is_tensor(value):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in leaves(v)]
    return []


def test_state_dict_round_trip(restorer):
    other = build(restorer.__class__.__name__).eval()
    other.load_state_dict(restorer.state_dict(), strict=True)
    pair = make_pair(48, 56)
    with torch.inference_mode():
        torch.testing.assert_close(other(pair), restorer(pair), rtol=0, atol=0)


def test_evaluation_repeats_and_leaves_its_input_alone(restorer):
    pair, center = make_pair(40, 72), make_pair(40, 72)[:, :3]
    kept = pair.clone(), center.clone()
    with torch.inference_mode():
        first, second = restorer(pair, center), restorer(pair, center)
    assert torch.equal(first, second)
    assert torch.equal(pair, kept[0]) and torch.equal(center, kept[1])


def test_can_be_copied(restorer):
    """Weight averaging keeps a deep copy beside the network."""
    pair = make_pair(40, 72)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(restorer)(pair), restorer(pair))


def test_training_and_evaluation_do_the_same_work(restorer):
    """`training_outputs` restores what `forward` restores; some published networks clip in the latter."""
    pair = make_pair(64, 64)
    batch = {"lq": pair, "center": (pair[:, :3] + pair[:, 3:]) / 2, "gt": pair[:, :3], "name": ["a"]}
    with torch.inference_mode():
        trained = restorer.training_outputs(batch)["restored"].clamp(0, 1)
        torch.testing.assert_close(trained, restorer(pair, batch["center"]).clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_sequences_as_declared(restorer):
    if not restorer.card.recurrent:
        pytest.skip("takes single pairs only")
    with torch.inference_mode():
        assert restorer(make_pair(64, 64, 4).view(2, 2, 6, 64, 64)).shape == (2, 2, 3, 64, 64)


def test_half_precision_as_declared(restorer):
    if "bfloat16" not in restorer.card.half_precision:
        pytest.skip("its card does not promise bfloat16")
    pair = make_pair(64, 64)
    with torch.inference_mode():
        full = restorer(pair)
        with torch.autocast("cpu", torch.bfloat16):
            half = restorer(pair).float()
    assert half.isfinite().all()
    assert (half - full).abs().mean() < 0.05 * full.abs().mean().clamp(min=0.1)


def test_view_order_matters_as_declared(restorer):
    pair = make_pair(64, 64)
    swapped = torch.cat([pair[:, 3:], pair[:, :3]], 1)
    with torch.inference_mode():
        differs = (restorer(pair) - restorer(swapped)).abs().max() > 1e-5
    uses_both = {"left", "right"} <= set(restorer.card.views)
    if restorer.card.view_order_matters and uses_both:
        assert differs
    if not uses_both:
        # Only the center view counts, which is the same either way.
        assert not differs
