"""The similarity by block products against one written shift by shift, forward and backward."""
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.errors import SizeError
from k3dn_plugin.layers import local_similarity as module
from k3dn_plugin.layers.local_similarity import _row_by_row, local_similarity


def by_hand(query, key, radius):
    """Mean over channels of query times shifted key, one shift after the other."""
    height, width = query.shape[-2:]
    padded = F.pad(key, (radius,) * 4)
    shifts = range(2 * radius + 1)
    return torch.stack([(query * padded[..., i:i + height, j:j + width]).mean(1) for i in shifts for j in shifts], 1)


def maps(*shape, memory_format=torch.contiguous_format):
    return [torch.randn(*shape, dtype=torch.float64).to(memory_format=memory_format).requires_grad_() for _ in "qk"]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape, radius", [((2, 5, 13, 21), 4), ((1, 3, 4, 8), 4), ((1, 1, 1, 1), 4), ((1, 2, 9, 7), 1),
                                           ((3, 4, 8, 16), 0), ((1, 4, 40, 40), 2)])
def test_feature(shape, radius, memory_format):
    query, key = maps(*shape, memory_format=memory_format)
    ours, wanted = local_similarity(query, key, radius), by_hand(query, key, radius)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-14)
    grad = torch.randn_like(wanted)
    for a, b in zip(torch.autograd.grad(ours, (query, key), grad), torch.autograd.grad(wanted, (query, key), grad)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_strips_change_nothing(monkeypatch):
    query, key = maps(2, 3, 19, 30)
    whole = local_similarity(query, key)
    monkeypatch.setattr(module, "PAIRS", {"cpu": 1})  # one row of blocks at a time
    assert torch.equal(whole, local_similarity(query, key))


def test_gradcheck():
    query, key = maps(1, 2, 5, 9)
    assert torch.autograd.gradcheck(lambda q, k: local_similarity(q, k, 1), (query, key))


def test_half_precision_and_meta():
    query, key = (x.detach().bfloat16() for x in maps(1, 64, 16, 16))
    ours = local_similarity(query, key)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), by_hand(query.float(), key.float(), 4), rtol=0.02, atol=0.01)
    assert local_similarity(query.to("meta"), key.to("meta")).shape == ours.shape


def test_compiled_it_is_one_operation_and_the_same_gradients():
    torch._dynamo.reset()
    query, key = maps(1, 2, 40, 40)
    calls = []

    def count(graph, _):
        calls.append([node for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward
    compiled = torch.compile(lambda q, k: local_similarity(q, k, 2), backend=count, fullgraph=True, dynamic=False)
    ours, wanted = compiled(query, key), local_similarity(query, key, 2)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
    assert len(calls) == 1 and len(calls[0]) == 1
    grad = torch.randn_like(wanted)
    for a, b in zip(torch.autograd.grad(ours, (query, key), grad), torch.autograd.grad(wanted, (query, key), grad)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_exception():
    with pytest.raises(SizeError, match="one shape"):
        local_similarity(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 9))


def test_what_exported_files_hold_is_the_same():
    query, key = torch.rand(2, 5, 13, 22), torch.rand(2, 5, 13, 22)
    torch.testing.assert_close(_row_by_row(query, key, 4), local_similarity(query, key, 4))
