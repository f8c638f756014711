"""How a process ends without Python's last step: what Python does before it is done, and the status is kept."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import atexit, logging, multiprocessing.util, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from k3dn_plugin.console import end_process

def later(name):
    time.sleep(0.3)
    Path(name).touch()

out = sys.argv[1]
atexit.register(Path(out, "atexit").touch)
if "raise" in sys.argv:
    atexit.register(lambda: 1 / 0)
multiprocessing.util.Finalize(None, Path(out, "finalizer").touch, exitpriority=0)
threading.Thread(target=later, args=(out + "/thread",)).start()
ThreadPoolExecutor(1).submit(later, out + "/pool")
print("said", end="")
end_process(7)
"""


@pytest.mark.parametrize("more", ["", "raise"])
def test_what_python_does_before_its_last_step_is_done(tmp_path, more):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), more], capture_output=True, text=True,
                          cwd=ROOT)
    assert done.returncode == 7, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"atexit", "finalizer", "thread", "pool"}
    assert done.stdout == "said" and ("ZeroDivisionError" in done.stderr) == bool(more)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.parametrize("out", [">/dev/full", ">&-"])
def test_output_that_nobody_takes_changes_no_status(tmp_path, out):
    done = subprocess.run(["sh", "-c", f'exec "$0" "$@" {out}', sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT,
                          capture_output=True, env={**os.environ, "PYTHONUNBUFFERED": ""})
    assert done.returncode == 7, done.stderr
