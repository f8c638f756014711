"""What a command asks of its process: threads that wait asleep, freed memory that stays."""
import json
import subprocess
import sys

import pytest

from k3dn_plugin.commands._process import prepare_process

ASK = """
import json, os, sys
from k3dn_plugin.commands._process import prepare_process
prepare_process()
print(json.dumps([os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules]))
"""
FAULTS = """
import ctypes, resource, sys
from k3dn_plugin.commands import _process
kept = _process.keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    block = libc.malloc(2 ** 26)
    ctypes.memset(block, 1, 2 ** 26)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code, *arguments, **environment):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
                          env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(filter(None, sys.path)), **environment})
    return done.stdout


@pytest.mark.parametrize("given, policy, spins", [({}, "PASSIVE", "3000"),
                                                  ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", None),
                                                  ({"GOMP_SPINCOUNT": "1000"}, None, "1000")])
def test_threads_soon_wait_asleep_unless_the_user_says_otherwise(given, policy, spins):
    assert json.loads(run(ASK, **given)) == [policy, spins, False]


def test_a_process_that_has_torch_already_is_left_alone():
    import torch  # noqa: F401 - so that it is there
    environment = {}
    prepare_process(environment)
    assert environment == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps memory on request")
def test_freed_memory_is_used_again():
    kept, faults = run(FAULTS, "keep").split()
    if kept != "True":
        pytest.skip("this C library keeps nothing on request")
    _, usual = run(FAULTS, "usual").split()
    assert int(faults) < 100 and int(usual) > 1000
