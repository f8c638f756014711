"""What a command asks of its process before it computes: threads that soon wait asleep, and freed memory that stays.

torch's threads wait for each other after every layer. By default they spin for some milliseconds first, which on a
machine with other work takes the time of those that they wait for. To sleep at once costs an idle machine up to a fifth
of its speed, since a thread takes longer to wake than most waits last; so they spin briefly. And glibc gives every
large block back to the system, which hands it out again page by page, each filled with zeros: networks allocate the
same blocks again and again. `benchmarks/process.py` measures both.
"""
import ctypes
import os
import sys
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")   # any of them is the user's own choice
KEPT = "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"
SPINS = "3000"   # some microseconds in libgomp, torch's own on Linux, for which this goes before the policy
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3   # of glibc's malloc.h
# Of a block that is kept, in bytes; a larger one goes back at once. With 1 GiB K3DN-L took 6.3 GiB for a whole frame of
# DPDD, with this 4.4 to 4.8, and 3.4 with none kept.
LARGEST = 2 ** 28


def prepare_process(environment: MutableMapping[str, str] | None = None) -> None:
    """Let threads wait asleep after some microseconds and freed memory stay, unless the environment says otherwise.

    Nothing is changed where torch is imported already: it has read the environment, and the process is its caller's.

    Args:
        environment: `os.environ`; processes that this one starts inherit it.
    """
    environment = os.environ if environment is None else environment
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"], environment["GOMP_SPINCOUNT"] = "PASSIVE", SPINS
    if not any(name in environment for name in KEPT):
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks up to 256 MiB for the next use; return whether it does (it is not everywhere).

    `k3dn_plugin.inference.memory.release` gives them back. Other C libraries refuse or ignore the call.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
