"""What several tests of training share: a recipe of two stages, and what "the same bits" means."""
import torch

PLAIN = {"network_g": {"norm": False, "dropout": 0.0}}
STAGES = {"train": {"total_iter": 10, "stages": [
    {"name": "base", "total_iter": 5},
    {"name": "refine", "total_iter": 5, "network_g": {"refine": True}, "trainable": ["refine.*"],
     "losses": {"pixel": {"type": "L1Loss"}}, "optim_g": {"lr": 1e-3}}]}}


def assert_equal(one, other, path="state"):
    """Two nested structures of tensors and plain values have the same bits."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other)):
            assert_equal(a, b, f"{path}[{i}]")
    else:
        assert one == other, path
