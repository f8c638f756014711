"""Importing is cheap and needs neither BasicSR nor torchvision; the pinned set is a pinned set."""
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("module", ["k3dn_plugin", "k3dn_plugin.registry", "k3dn_plugin.options"])
def test_import_is_light(module):
    code = (f"import sys, {module}; print(sorted(m for m in ('basicsr', 'torchvision', 'cv2', 'matplotlib') "
            "if m in sys.modules))")
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    if module == "k3dn_plugin":
        # The ceiling that users are promised; the package itself takes a few hundredths of this.
        assert time.perf_counter() - began < 3


def test_everything_imports_without_basicsr_and_torchvision():
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('basicsr', 'torchvision'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from k3dn_plugin.registry import REGISTRIES
print(min(len(r.names()) for r in REGISTRIES.values()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_pinned_requirements_are_exact():
    for line in (ROOT / "requirements" / "pinned.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"^[\w-]+==[\w.]+(; .+)?$", line), line


def test_tools_explain_themselves():
    for tool in sorted((ROOT / "tools").glob("*.py")):
        done = subprocess.run([sys.executable, str(tool), "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "usage:" in done.stdout, f"{tool}: {done.stderr}"
