"""How much memory a computation takes: measured, not guessed.

On a GPU the figure is what torch has allocated there. On the CPU it is the resident memory of the whole
process, because that is what a user sees and what a bound has to hold: torch, the frames and the network
count too. Linux can reset a process's peak, so the peak of one call can be read; elsewhere the peak since
the program's start is taken, which is never too small.
"""
import contextlib
import ctypes
import os
import re
import sys

import torch

GIB = 2 ** 30


def memory_in_use(device: torch.device) -> int:
    """Return the bytes in use now: the process's resident memory, or what torch has allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") or _highest()


def memory_available(device: torch.device) -> int:
    """Return the bytes that `memory_in_use` may rise to before memory runs out."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator holds but does not use can be used.
        return free + torch.cuda.memory_reserved(device)
    free = [f for f in (_meminfo(), _group_limit()) if f is not None]
    return memory_in_use(device) + min(free, default=2 * GIB)


class PeakMemory:
    """Context that notes the most memory in use while it lasts, in `bytes`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self.bytes = _status("VmHWM") or _highest()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"out of memory|not enough memory|can't allocate memory|DefaultCPUAllocator|ALLOC_FAILED|"
                  r"bad_alloc|bad allocation", str(error)))


def release(device: torch.device) -> None:
    """Give back memory that an allocator holds without need."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        # glibc keeps freed blocks of some megabytes; musl has no such call, and no such habit.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(key: str) -> int | None:
    """A line of /proc/self/status in bytes, or None where there is none."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return None


def _highest() -> int:
    """The process's peak resident memory since its start, 0 where the system does not say."""
    try:
        import resource  # not on Windows
    except ImportError:  # Windows
        return 0
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _meminfo() -> int | None:
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _group_limit() -> int | None:
    """What the control group (a container) still allows, or None where it sets no limit."""
    for folder, limit, usage, cache in (
            ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
             "total_inactive_file")):
        with contextlib.suppress(OSError, ValueError):
            high, used = (int(_text(f"{folder}/{name}")) for name in (limit, usage))
            # Files that the system keeps in memory only as a cache are counted as used, but give way.
            found = re.search(rf"^{cache} (\d+)$", _text(f"{folder}/memory.stat"), re.MULTILINE)
            left = high - used + (int(found[1]) if found else 0)
            return max(left, 0) if left < 2 ** 50 else None
    return None


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()
