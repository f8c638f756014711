"""The device that a user names."""
import pytest
import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference.device import choose_device


def test_devices(monkeypatch):
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    for unknown in ("gpu", "cuda:", "cuda:x", "", None):
        with pytest.raises(OptionError, match="expected auto, cpu, cuda or cuda:N"):
            choose_device(unknown)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for missing in ("cuda", "cuda:0"):
        with pytest.raises(OptionError, match=f"--device {missing}: torch sees no CUDA device"):
            choose_device(missing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(OptionError, match="process 2 of this machine has no GPU of its own"):
        choose_device("cuda", 2)
    with pytest.raises(OptionError, match="cuda:2: torch sees 2"):
        choose_device("cuda:2")
