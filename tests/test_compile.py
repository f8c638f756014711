"""Nothing in a forward pass breaks the graph of `torch.compile`, and weights take the channels-last format."""
import pytest
import torch

from k3dn_plugin.registry import ARCHS, MODULES

# Solves for its filters by a loop whose length depends on values, as its card says.
BREAKS = {"DMENet"}
RESTORERS = [name for name in ARCHS.names() if ARCHS.get(name).__module__.startswith("k3dn_plugin.")]
DEBLURS = [name for name in MODULES.names() if MODULES.get(name).__module__.startswith("k3dn_plugin.modules.deblur")]


def build(name):
    torch.manual_seed(0)
    return ARCHS.build({"type": name, **ARCHS.get(name).tiny_arguments}).eval()


def pair_for(restorer):
    return torch.rand(1, 6, *restorer.size_rule.padded(64, 64))


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# Dual-pixel variants are the same code with more channels.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RESTORERS if not name.endswith("Dual")])
def test_one_graph(name):
    restorer = build(name)
    compiled = torch.compile(restorer, backend="eager", fullgraph=name not in BREAKS)
    if name in BREAKS:
        assert "compile" in restorer.card.notes, "its card says why it cannot be one graph"
        return
    pair = pair_for(restorer)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pair), restorer(pair), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEBLURS)
def test_one_graph_with_every_deblur_module(name):
    torch.manual_seed(0)
    arguments = dict(ARCHS.get("K3DN").tiny_arguments)
    arguments["deblur"] = {"type": name}
    restorer = ARCHS.build({"type": "K3DN", **arguments}).eval()
    pair = pair_for(restorer)
    with torch.no_grad():
        compiled = torch.compile(restorer.deblur, backend="eager", fullgraph=True)
        seen = {}
        hook = restorer.deblur.register_forward_pre_hook(lambda module, given: seen.setdefault("given", given))
        restorer(pair)
        hook.remove()
        torch.testing.assert_close(compiled(*seen["given"]), restorer.deblur(*seen["given"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RESTORERS)
def test_channels_last(name):
    restorer = build(name)
    pair = pair_for(restorer)
    with torch.no_grad():
        before = restorer(pair)
        after = restorer.to(memory_format=torch.channels_last)(pair)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in restorer.modules()
               if isinstance(m, torch.nn.Conv2d))
