"""Mixed precision: torch's autocast and, for float16, its gradient scaler."""
import contextlib

import torch

from k3dn_plugin.errors import OptionError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """`autocast()` for the forward pass and `scaler` for the backward pass.

    Args:
        amp: null, "bfloat16" (GPU and CPU) or "float16" (GPU).
        device: where training runs.

    Raises:
        OptionError: float16 on the CPU, or bfloat16 on a GPU that does not have it.
    """

    def __init__(self, amp, device):
        if amp == "float16" and device.type == "cpu":
            raise OptionError("train.amp: float16 needs a GPU (the CPU has no fast float16, and its small "
                              "range needs a scaler). Use amp: bfloat16, or amp: null")
        if amp == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise OptionError(f"train.amp: {torch.cuda.get_device_name(device)} has no bfloat16. "
                              "Use amp: float16, or amp: null")
        self.dtype = DTYPES.get(amp)
        self.device = device
        # Disabled, the scaler passes everything through, so that the loop has one path.
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "float16")

    def autocast(self):
        """Context of the forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
