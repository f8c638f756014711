"""Published files in every official layout, made here from the manifests: recognised, loaded, never executed."""
import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo import load_official, read_weights, restorer_from_weights
from k3dn_plugin.zoo.formats.base import official_format
from k3dn_plugin.zoo.parity import read_manifest, weights
from k3dn_plugin.zoo.weights import load_pretrained, load_weights

ROOT = Path(__file__).resolve().parents[2]
PARITY = ROOT / "tests" / "data" / "parity"
KERAS = ("dpdnet", "rdpd")
TORCH = ("bambnet", "deeprft", "drbnet", "drbnet_dual", "ifan", "ifan_dual", "ifan_train", "ifan_dual_train",
         "k3dn", "k3dn_base", "restormer", "sfnet", "sfnet_dual",
         "iniknet", "dinat_ir", "dinat_ir_dual", "ldp")


def official(network, manifest="manifest.json"):
    """The manifest and its tensors in float32, as published files are."""
    found = read_manifest(PARITY / network / manifest)
    return found, {key: value.astype(np.float32) if value.dtype == np.float64 else value
                   for key, value in weights(found).items()}


def expected(network, manifest="manifest.json"):
    """Our state dict for a manifest, by the mapping that the parity check proves."""
    found, tensors = official(network, manifest)
    return official_format(network.removesuffix("_train")).convert(tensors, network.removesuffix("_train"))


def as_torch(tensors):
    return {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}


def write_keras(path, network, *, root=False, first=1, text=False):
    """As Keras writes it, layer by layer; members listed alphabetically, attributes of bytes or text."""
    _, tensors = official(network)
    layers = json.loads((PARITY / network / "hdf5_layout.json").read_text())["layers"]
    values = iter(tensors.values())

    def strings(names):
        return np.array(names, dtype=h5py.string_dtype()) if text else np.array([n.encode() for n in names] or [],
                                                                               dtype="S64")

    with h5py.File(path, "w") as file:
        group = file if root else file.create_group("model_weights")
        names = [renumbered(layer["layer"], first) for layer in layers]
        group.attrs["layer_names"] = strings(names)
        for name, layer in zip(names, layers):
            held = [w.replace(layer["layer"], name) for w in layer["weight_names"]]
            of = group.require_group(name)  # a name with a slash may have made it
            of.attrs["weight_names"] = strings(held)
            for weight in held:
                of.create_dataset(weight, data=next(values))
        if not root:
            file.create_group("optimizer_weights").create_dataset("m", data=np.zeros(3))
    assert next(values, None) is None


def renumbered(name, first):
    """Layer names go on counting from whatever the session had made before."""
    stem, _, number = name.rpartition("_")
    return f"{stem}_{int(number) + first - 1}" if number.isdigit() and first != 1 else name


def assert_same_state(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key].double(), value.to(found[key].dtype).double()), key


WRAPPINGS = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "averaged": lambda state: {"params": {k: v + 1 for k, v in state.items()}, "params_ema": state},
    "trainer": lambda state: {"epoch": 7, "state_dict": state, "optimizer": {"state": {}, "param_groups": []},
                              "best": np.float64(26.3)},
    "parallel": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "compiled": lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
}


@pytest.mark.parametrize("network", TORCH)
def test_pytorch_files(network, tmp_path):
    _, tensors = official(network)
    state = as_torch(tensors)
    if network.startswith("ifan"):
        state = {f"module.{k if k.startswith(('Network.', 'reblurNet.')) else 'Network.' + k}": v
                 for k, v in state.items()}
    torch.save(state, tmp_path / "published.pytorch")
    found = load_official(tmp_path / "published.pytorch")
    assert found.network == network.removesuffix("_train")
    assert_same_state(found.restorer.state_dict(), expected(network))
    assert found.restorer.card.title in found.describe() and ", ".join(found.views) in found.describe()


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("new", [True, False])
def test_wrappers_and_prefixes(wrapping, new, tmp_path):
    _, tensors = official("drbnet_dual")
    torch.save(WRAPPINGS[wrapping](as_torch(tensors)), tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    assert_same_state(load_official(tmp_path / "net.pth").restorer.state_dict(), expected("drbnet_dual"))


@pytest.mark.parametrize("network", KERAS)
@pytest.mark.parametrize("how", [{}, {"root": True}, {"first": 40}, {"text": True}])
def test_keras_files(network, how, tmp_path):
    write_keras(tmp_path / "model.hdf5", network, **how)
    found = load_official(tmp_path / "model.hdf5")
    assert found.network == network
    assert_same_state(found.restorer.state_dict(), expected(network))


@pytest.mark.parametrize("network", ["kpac", "kpac_dual"])
def test_nameless_lists(network, tmp_path):
    _, tensors = official(network)
    params = np.empty(len(tensors), dtype=object)
    params[:] = list(tensors.values())
    np.savez(tmp_path / "net.npz", params=params)
    found = load_official(tmp_path / "net.npz")
    assert found.network == network
    assert_same_state(found.restorer.state_dict(), expected(network))


def test_lists_written_by_python_2(tmp_path):
    """Protocol 2 with old module names, as TensorLayer wrote them."""
    _, tensors = official("kpac")
    params = np.empty(len(tensors), dtype=object)
    params[:] = list(tensors.values())
    write_object_array(tmp_path / "net.npz", pickle.dumps(params, protocol=2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"), len(tensors))
    assert_same_state(load_official(tmp_path / "net.npz").restorer.state_dict(), expected("kpac"))


def test_named_arrays_and_what_only_training_used(tmp_path):
    _, tensors = official("dmenet")
    extra = {"discriminator/feature/h0/kernel:0": np.zeros((3, 3, 1, 2), np.float32),
             "main_net/binary_net/b1/kernel:0": np.zeros((3, 3, 1, 2), np.float32)}
    np.savez(tmp_path / "DMENet_BDCS.npz", **tensors, **extra)
    found = load_official(tmp_path / "DMENet_BDCS.npz")
    assert found.network == "dmenet" and found.views == ("center",)
    assert_same_state(found.restorer.state_dict(), expected("dmenet"))


@pytest.mark.parametrize("offered", ["model/Estd.pkl", "model/Esti.pkl", "model"])
def test_dddnet_is_two_files(offered, tmp_path):
    (tmp_path / "model").mkdir()
    for part in ("estd", "esti"):
        _, tensors = official("dddnet", f"manifest_{part}.json")
        torch.save({f"module.{k}": v for k, v in as_torch(tensors).items()},
                   tmp_path / "model" / f"{part.capitalize()}.pkl")
    found = load_official(tmp_path / offered)
    assert found.network == "dddnet"
    _, tensors = official("dddnet", "manifest_esti.json")
    wanted = as_torch(tensors)
    for key, value in found.restorer.esti.state_dict().items():
        assert torch.equal(value, wanted[key].to(value.dtype)), key


def test_half_of_dddnet_is_explained(tmp_path):
    _, tensors = official("dddnet", "manifest_estd.json")
    torch.save(as_torch(tensors), tmp_path / "Estd.pkl")
    with pytest.raises(CheckpointError, match="two files.*found estd .Estd.pkl."):
        load_official(tmp_path / "Estd.pkl")


def test_safetensors_of_others(tmp_path):
    _, tensors = official("restormer")
    save_file(tensors, tmp_path / "restormer.safetensors")
    assert_same_state(load_official(tmp_path / "restormer.safetensors").restorer.state_dict(),
                      expected("restormer"))


def test_counters_that_old_pytorch_did_not_save(tmp_path):
    _, tensors = official("k3dn_base")
    state = {k: v for k, v in as_torch(tensors).items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "base.pt")
    assert load_official(tmp_path / "base.pt").network == "k3dn_base"
    torch.save({**state, "disp.feature.start.0.bn.num_batches_tracked": torch.tensor(9)}, tmp_path / "base.pt")
    assert load_official(tmp_path / "base.pt").network == "k3dn_base"


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def write_object_array(path, pickled, count):
    import io
    import zipfile
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|O", "fortran_order": False, "shape": (count,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("params.npy", member.getvalue() + pickled)


@pytest.mark.parametrize("form", ["pth", "old pth", "pkl", "npz"])
def test_code_in_a_file_is_never_executed(form, tmp_path):
    trace, path = tmp_path / "executed", tmp_path / "file"
    state = {**as_torch(official("drbnet")[1]), "extra": Bomb(trace)}
    if form == "npz":
        write_object_array(path, pickle.dumps([Bomb(trace)]), 1)
    elif form == "pkl":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "pth")
    for read in (load_official, read_weights):
        with pytest.raises(CheckpointError, match="refused"):
            read(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", ["pth", "npz", "hdf5"])
@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_truncated_files(suffix, keep, tmp_path):
    path = tmp_path / f"net.{suffix}"
    if suffix == "pth":
        torch.save(as_torch(official("drbnet")[1]), path)
    elif suffix == "npz":
        np.savez(path, **official("dmenet")[1])
    else:
        write_keras(path, "dpdnet")
    data = path.read_bytes()
    path.write_bytes(data[:int(keep * len(data))])
    with pytest.raises(CheckpointError, match=f"net.{suffix} .*damaged or cut short"):
        load_official(path)


def test_networks_of_other_tasks_are_reported(tmp_path):
    torch.save({"body.0.weight": torch.zeros(3, 4)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"no network known here .it begins with body.0.weight \(3, 4\)"):
        load_official(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_official(tmp_path / "list.pth")
    torch.save({"deblur.0.conv1.weight_left": torch.zeros(1)}, tmp_path / "fixed.pt")
    with pytest.raises(CheckpointError, match="fixed for inference"):
        load_official(tmp_path / "fixed.pt")


def test_every_place_that_wants_weights_takes_them(tmp_path):
    manifest, tensors = official("drbnet_dual")
    torch.save(as_torch(tensors), tmp_path / "dual.pth")
    wanted = expected("drbnet_dual")
    assert_same_state(restorer_from_weights(tmp_path / "dual.pth").state_dict(), wanted)
    known = official_format("drbnet_dual")
    network_g = {"type": "DRBNetDual", **known.arguments(manifest["settings"], "drbnet_dual")}
    model = ARCHS.build(network_g)
    assert load_pretrained(tmp_path / "dual.pth", model, network_g=network_g) == []
    assert_same_state(model.state_dict(), wanted)


def test_a_single_image_file_for_a_dual_network_is_explained(tmp_path):
    manifest, tensors = official("drbnet")
    torch.save(as_torch(tensors), tmp_path / "single.pth")
    model = ARCHS.build({"type": "DRBNetDual", "width": manifest["settings"]["widths"][0]})
    with pytest.raises(CheckpointError, match="single-image network, which reads center; DRBNetDual reads"):
        load_weights(tmp_path / "single.pth", model)


def test_the_converter(tmp_path):
    _, tensors = official("restormer")
    torch.save({"params": as_torch(tensors)}, tmp_path / "dual_pixel.pth")
    tool = [sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), str(tmp_path / "dual_pixel.pth")]
    done = subprocess.run([*tool, "-o", str(tmp_path / "out.safetensors")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Restormer" in done.stdout and "views: left, right" in done.stdout
    file = read_weights(tmp_path / "out.safetensors")
    assert_same_state(file.state, expected("restormer"))
    assert file.provenance["origin"] == "official weights" and len(file.provenance["sha256"]) == 64
    assert file.network_g["type"] == "Restormer" and file.provenance["file"] == "dual_pixel.pth"
    done = subprocess.run([*tool[:2], str(tmp_path / "missing.pth")], capture_output=True, text=True)
    assert done.returncode == 2 and "no weights file at" in done.stderr
