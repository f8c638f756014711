"""Running a restorer through `torch.compile`: asked for, checked before it starts, with errors that say what to do."""
import contextlib
import functools
import importlib
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable
from itertools import chain
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from k3dn_plugin.errors import DependencyError

COMPILERS = ("g++", "c++", "clang++")
SIZES = 64   # in one process, of all restorers together; torch's own 8 are used up by a folder of mixed photographs

_frozen: WeakKeyDictionary[nn.Module, list[tuple[int, int]]] = WeakKeyDictionary()   # weights that were compiled


def compiled(restorer: nn.Module, device: torch.device) -> Callable[..., torch.Tensor]:
    """Return what calls `restorer` compiled for each size that it meets; the first call of a size takes a minute.

    On the CPU the weights become constants. When they have changed by the next call, everything is compiled anew.
    Sizes beyond `SIZES` run as they are, with a warning of torch's.

    Raises:
        DependencyError: there is no C++ compiler for the CPU, or no Triton for a GPU; when called, also where the
            compiler fails.
    """
    check_compiler(device)
    freezes = device.type == "cpu"
    # In bfloat16, torch 2.13 compiles convolutions with weights in the default order to NaN on the CPU (seen in K3DN).
    cast(Any, restorer).to(memory_format=torch.channels_last)
    network = cast(Callable[..., torch.Tensor],
                   torch.compile(restorer, dynamic=False))   # pyright: ignore[reportUnknownMemberType]

    def call(*arguments: Any, **named: Any) -> torch.Tensor:
        # Imported here, because it takes seconds and only who compiles needs it.
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor
        from torch._dynamo.exc import TorchDynamoException

        # With the weights as constants, convolutions take in what follows them: fewer kernels to compile and to run
        # (`benchmarks/compiling.py`). The weights are in memory twice, in their own order and in the processor's.
        # Patched for the call, since the trace looks at the setting and overlooks an option of `torch.compile`.
        if freezes:
            forget_changed(restorer)
            look_at_processor()
        try:
            with cast(Any, inductor).patch(freezing=freezes), cast(Any, dynamo).patch(cache_size_limit=SIZES):
                return network(*arguments, **named)
        except TorchDynamoException as error:
            cause = " ".join(str(error).split())[:300] or type(error).__name__
            raise DependencyError(f"compile: {type(restorer).__name__} could not be compiled ({cause}). Check "
                                  "the compiler, or restore without compile") from error
    return call


def forget_changed(restorer: nn.Module) -> None:
    """Drop what was compiled when the restorer's weights are not those that it was compiled with."""
    weights = [(each.data_ptr(), 0 if each.is_inference() else each._version)
               for each in chain(restorer.parameters(), restorer.buffers())]
    if _frozen.setdefault(restorer, weights) != weights:
        torch.compiler.reset()   # also of other restorers: a call of them compiles again
        _frozen[restorer] = weights


@functools.cache
def look_at_processor() -> None:
    """Let torch find out, beside the trace, which instructions compiler and processor share.

    It compiles and loads a small library for each set of instructions, one after the other, which takes 7 to 13 s the
    first time on a machine. It would begin after the trace, and have one core wait. torch keeps the answers, and locks
    the files.
    """
    # All is imported before the thread begins: two threads that import torch's circles of modules may meet half of one.
    try:
        importlib.import_module("torch._inductor.compile_fx")
        list_instructions: Any = importlib.import_module("torch._inductor.cpu_vec_isa").valid_vec_isa_list
    except (ImportError, AttributeError):   # another version of torch may have another place for it
        return

    def look() -> None:
        with contextlib.suppress(Exception):   # the compilation meets the same and reports it
            list_instructions()
    threading.Thread(target=look, name="look_at_processor", daemon=True).start()


def check_compiler(device: torch.device) -> None:
    """Raise `DependencyError` unless what `torch.compile` needs on the device is there."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise DependencyError("compile: expected the package triton, which compiles for the GPU; it is not "
                                  "installed. pip install triton, or restore without compile")
        return
    named = os.environ.get("CXX")
    wanted = (named,) if named else ("cl",) if sys.platform == "win32" else COMPILERS
    if not any(shutil.which(name) for name in wanted):
        raise DependencyError(f"compile: expected a C++ compiler ({', '.join(wanted)}"
                              f"{', as CXX says' if named else ''}); found none. Install one (on Debian and Ubuntu: "
                              "apt install g++), or restore without compile")
