"""Where half precision would be wrong."""
import contextlib

import torch


def without_autocast(tensor: torch.Tensor):
    """A context on the tensor's device in which autocast is off; nothing on the meta device, which has none."""
    if tensor.device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
