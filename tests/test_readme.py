"""The README's and the site's first lines of Python run as they stand there."""
import re
from pathlib import Path

import numpy as np
import pytest

from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo import sources
from k3dn_plugin.zoo.weights import save_weights

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"type": "K3DN", "base_channels": 4, "encoder_blocks": 1, "window": [6, 6], "vector_size": 8, "residual": True,
         "disparity": {"type": "CostVolumeDisparity", "pools": [12, 6]},
         "deblur": {"type": "KernelSetDeblur", "blocks": 1}}


@pytest.fixture
def with_weights(tmp_path, monkeypatch):
    """A folder with the files that the pages name: the demo's weights, those of a release, two views."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "RELEASED", tmp_path / "released")
    for path in ("experiments/k3dn_demo/models/best.safetensors", "released/k3dn_s_real.safetensors"):
        save_weights(path, ARCHS.build(SMALL), network_g=SMALL, provenance={})
    generator = np.random.default_rng(1)
    for view in ("left", "right"):
        write_image(f"{view}.png", generator.integers(0, 65536, (72, 90, 3), dtype=np.uint16))


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/restore.md"])
def test_five_lines_of_python(page, with_weights):
    code = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)[1]
    assert len(code.split("\n\n")) == 2 and len(code.strip().splitlines()) <= 6
    exec(compile(code, page, "exec"), {})
    sharp = read_image("sharp.png")
    assert sharp.shape == (72, 90, 3) and sharp.dtype == np.uint16
    assert not np.array_equal(sharp, read_image("left.png"))


def test_the_further_lines_of_python(with_weights, capsys):
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "restore.md").read_text(encoding="utf-8"), re.S)
    views = {view: read_image(f"{view}.png") for view in ("left", "right")}
    import k3dn_plugin
    found = {**views, "center": views["left"], "k3dn": k3dn_plugin}
    exec(compile(code, "docs/restore.md", "exec"), found)
    assert found["sharp"].dtype == np.uint16 and "tile 4 of 4" in capsys.readouterr().out
    assert found["again"].weights_hash == found["restorer"].weights_hash


def test_the_commands_of_the_photograph_run(with_weights, capsys):
    """Every `k3dn restore` of the README's section, with files of the names that stand there."""
    from k3dn_plugin.commands import main
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Your own photograph"):text.index("## Two commands")]
    commands = re.findall(r"k3dn (restore [^\n#]*--left[^\n#]*)", section)
    for name, view in (("L", "left"), ("R", "right")):
        write_image(f"{name}.png", read_image(f"{view}.png"))
    assert commands
    for command in commands:
        assert main(command.split()) == 0
    assert Path("sharp.png").is_file() and Path("sharp_preview.jpg").is_file() and Path("sharp.html").is_file()
