"""Where tensors are computed: one choice for training, scoring and restoring."""
import re
from pathlib import Path

import torch

from k3dn_plugin.errors import OptionError


def choose_device(name: str | torch.device = "auto", local_rank: int = 0) -> torch.device:
    """Return the `torch.device` that a user names.

    Args:
        name: "auto" (CUDA where there is one), "cpu", "cuda" (the process's own GPU) or "cuda:N".
        local_rank: number of this process among those of the machine, which is the number of its GPU.

    Raises:
        OptionError: another name, CUDA is asked for and missing, or there is no such GPU.
    """
    name = str(name)
    numbered = re.fullmatch(r"cuda:(\d+)", name)
    if name not in ("auto", "cpu", "cuda") and not numbered:
        raise OptionError(f"device: expected auto, cpu, cuda or cuda:N; found {name!r}")
    available = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise OptionError(f"--device {name}: torch sees no CUDA device. Check `nvidia-smi` and that the installed "
                          f"torch ({torch.__version__}) is a CUDA build, or use --device cpu")
    count = torch.cuda.device_count()
    if numbered:
        if int(numbered[1]) >= count:
            raise OptionError(f"--device {name}: torch sees {count} CUDA device(s), numbered from 0")
        return torch.device("cuda", int(numbered[1]))
    if local_rank >= count:
        raise OptionError(f"process {local_rank} of this machine has no GPU of its own: torch sees {count}. Start at "
                          "most as many processes as GPUs")
    return torch.device("cuda", local_rank)


def bfloat16_is_fast(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 faster than in float32, as far as the system says.

    A processor without instructions for it (AVX-512 BF16, AMX, Arm's BF16) computes in float32 and converts.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:  # not on Linux
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
