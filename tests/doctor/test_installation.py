"""The doctor finds what is wrong, says how to fix it, and does not fall ill itself."""
import re
import sys
from pathlib import Path

from k3dn_plugin.doctor import installation as doctor


def by_name(findings):
    return {finding.what: finding for finding in findings}


def test_this_installation_is_sound():
    findings = doctor.examine()
    assert not [f for f in findings if f.harmful], doctor.report(findings)
    assert "all that is needed works" in doctor.report(findings)


def test_every_dependency_is_looked_at():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.split("\ndependencies = [")[1].split("\n]")[0]
    # Those that depend on the version of Python are looked at in ways of their own.
    needed = {name.lower() for name in re.findall(r'^ +"([\w-]+)[^;"]*",$', listed, re.MULTILINE)}
    assert len(needed) > 15
    assert needed == {name.lower() for name in doctor.NEEDED.values()}


def test_a_missing_and_a_broken_package_are_distinguished(monkeypatch):
    def broken(name):
        if name == "lmdb":
            raise ModuleNotFoundError("No module named 'lmdb'", name="lmdb")
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return sys.modules[name]
    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    lost, ill = doctor._package("lmdb", "lmdb"), doctor._package("cv2", "opencv-python")
    assert lost.state == "missing" and "pip install lmdb" in lost.fix
    assert ill.state == "broken" and "libgl1" in ill.fix
    text = doctor.report([lost, ill])
    assert "2 to fix: lmdb, opencv-python" in text
