"""Every published network that has a manifest here: our outputs against the published ones, in float64."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.formats.base import official_format
from k3dn_plugin.zoo.parity import check_parity, read_manifest, weights

FOLDER = Path(__file__).parent / "data" / "parity"
# A folder may hold several manifests (manifest_x.json with golden_x.npz) and goldens listed under `extra`.
PAIRS = sorted((manifest, golden)
               for manifest in FOLDER.glob("*/manifest*.json")
               for golden in [manifest.with_name(manifest.name.replace("manifest", "golden")
                                                 .replace(".json", ".npz")),
                              *(manifest.with_name(name)
                                for name in json.loads(manifest.read_text()).get("extra", {}))])


@pytest.mark.parametrize("manifest, golden", PAIRS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_outputs_are_the_published_ones(manifest, golden):
    report = check_parity(manifest, golden)
    assert report.passed, report.errors


@pytest.mark.parametrize("folder", sorted(p.name for p in FOLDER.iterdir()))
def test_parameter_count_is_the_measured_one(folder):
    manifest = read_manifest(FOLDER / folder / "manifest.json")
    wanted = manifest.get("measured", {}).get("params")
    if wanted is None:
        pytest.skip("the manifest states no parameter count")
    model = official_format(manifest["arch"]).build(manifest["settings"], manifest["arch"])
    assert sum(p.numel() for p in model.parameters()) == wanted


@pytest.fixture(scope="module")
def small_k3dn(tmp_path_factory):
    """A small manifest of our own making, quick to build: the checks below need one to spoil."""
    folder = tmp_path_factory.mktemp("parity")
    settings = {"base_channel": 4, "ed_res": 1, "ld_res": 1, "truncate": 100, "window_size": [18, 14],
                "style_dim": 8, "kernel_size": 9, "fdomain_size": 10, "maxdisp": 12}
    known = official_format("k3dn_base")
    state = known.to_official(known.build(settings, "k3dn_base").state_dict())
    tensors = [{"key": k, "shape": list(v.shape), "dtype": str(v.dtype).split(".")[1].replace("32", "64")
                if v.is_floating_point() else "int64",
                "init": {"kind": "values", "values": v.double().flatten().tolist()}}
               for k, v in state.items()]
    inputs = [{"name": n, "shape": [1, 3, 256, 256], "low": -0.5, "high": 0.5}
              for n in ("left", "right", "sharp")]
    manifest = {"arch": "k3dn_base", "settings": settings, "inputs": inputs, "tensors": tensors,
                "outputs": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    model = known.build(settings, "k3dn_base").double()
    known.load(model, weights(manifest), "k3dn_base")
    from k3dn_plugin.zoo.parity import inputs_of
    with torch.inference_mode():
        golden = known.outputs(model, {k: torch.from_numpy(v) for k, v in inputs_of(manifest).items()},
                               "k3dn_base")
    np.savez(folder / "golden.npz", **{k: v.numpy() for k, v in golden.items()})
    return folder, manifest


def test_official_names_there_and_back(small_k3dn):
    folder, _ = small_k3dn
    assert check_parity(folder).passed


def test_a_variant_finds_its_own_golden(small_k3dn, tmp_path):
    folder, _ = small_k3dn
    (tmp_path / "manifest_x.json").write_bytes((folder / "manifest.json").read_bytes())
    (tmp_path / "golden_x.npz").write_bytes((folder / "golden.npz").read_bytes())
    assert check_parity(tmp_path / "manifest_x.json").passed


def test_a_wrong_value_fails(small_k3dn):
    folder, _ = small_k3dn
    golden = dict(np.load(folder / "golden.npz"))
    golden["deblur_s5"] = golden["deblur_s5"] + 1e-6
    np.savez(folder / "off.npz", **golden)
    report = check_parity(folder / "manifest.json", folder / "off.npz")
    assert not report.passed and report.errors["disparity"] < 1e-12 < report.errors["deblur_s5"]


@pytest.mark.parametrize("change, message", [
    (lambda m: m.update(arch="k3dm"), "no official format is known for the network 'k3dm'"),
    (lambda m: m["tensors"].pop(3), "1 keys missing"),
    (lambda m: m["tensors"].append({**m["tensors"][0], "key": "extra.weight"}), "extra.weight"),
    (lambda m: m["tensors"][0].update(init={"kind": "odd"}), "unknown kind of values 'odd'"),
    (lambda m: m["settings"].update(base_channel=8), "shapes differ"),
    (lambda m: m["settings"].update(in_channels=3), "only the dual-pixel network"),
])
def test_manifests_that_do_not_fit_are_explained(small_k3dn, tmp_path, change, message):
    folder, manifest = small_k3dn
    changed = json.loads(json.dumps(manifest))
    change(changed)
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match=message):
        check_parity(tmp_path / "manifest.json", folder / "golden.npz")


def test_files_that_are_missing_or_damaged(small_k3dn, tmp_path):
    folder, _ = small_k3dn
    with pytest.raises(CheckpointError, match="there is no file"):
        check_parity(tmp_path)
    with pytest.raises(CheckpointError, match="there is no file"):
        check_parity(folder / "manifest.json", tmp_path / "golden.npz")
    (tmp_path / "golden.npz").write_bytes(b"not an archive")
    with pytest.raises(CheckpointError, match="not a readable .npz"):
        check_parity(folder / "manifest.json", tmp_path / "golden.npz")
    np.savez(tmp_path / "golden.npz", other=np.zeros(3))
    with pytest.raises(CheckpointError, match="is it the golden of this manifest"):
        check_parity(folder / "manifest.json", tmp_path / "golden.npz")
