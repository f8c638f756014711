"""The README's and the site's first lines of Python run as they stand there."""
import re
from pathlib import Path

import numpy as np
import pytest

from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.weights import save_weights

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"type": "K3DN", "base_channels": 4, "encoder_blocks": 1, "window": [6, 6], "vector_size": 8, "residual": True,
         "disparity": {"type": "CostVolumeDisparity", "pools": [12, 6]},
         "deblur": {"type": "KernelSetDeblur", "blocks": 1}}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_five_lines_of_python(page, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)[1]
    assert len(code.split("\n\n")) == 2 and len(code.strip().splitlines()) <= 6
    monkeypatch.chdir(tmp_path)
    save_weights("experiments/k3dn_demo/models/best.safetensors", ARCHS.build(SMALL), network_g=SMALL, provenance={})
    generator = np.random.default_rng(1)
    for view in ("left", "right"):
        write_image(f"{view}.png", generator.integers(0, 65536, (72, 90, 3), dtype=np.uint16))
    exec(compile(code, page, "exec"), {})
    sharp = read_image("sharp.png")
    assert sharp.shape == (72, 90, 3) and sharp.dtype == np.uint16
    assert not np.array_equal(sharp, read_image("left.png"))
