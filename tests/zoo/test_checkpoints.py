"""Checkpoints as other programs leave them: unwrapped, averages first; relatives, archives and bombs refused."""
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.registry import ARCHS
from k3dn_plugin.zoo.formats.base import official_format
from k3dn_plugin.zoo.load import load_restorer
from k3dn_plugin.zoo.weights import read_weights, save_weights

ROOT = Path(__file__).resolve().parents[2]
NETWORK = {"type": "Restormer", "width": 8, "blocks": [1, 1, 1, 1], "refinement_blocks": 1, "dual_pixel": True}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ARCHS.build(NETWORK)


@pytest.fixture(scope="module")
def official(model):
    """A small Restormer's state under its official keys."""
    return {key: torch.as_tensor(np.asarray(value))
            for key, value in official_format("restormer").to_official(model.state_dict()).items()}


def under(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


WRAPPINGS = {
    "under generator": lambda s, z: {"generator": s},
    "under net_g": lambda s, z: {"net_g": s, "net_d": {"a": torch.zeros(2)}},
    "ema beside state_dict": lambda s, z: {"state_dict": z, "ema": s},
    "model_ema beside model": lambda s, z: {"model": z, "model_ema": s, "epoch": 3},
    "state_dict_ema beside state_dict": lambda s, z: {"state_dict": z, "state_dict_ema": s},
    "params_ema beside params": lambda s, z: {"params": z, "params_ema": s},
    "ema in a mapping of its own": lambda s, z: {"state_dict": z, "ema": {"decay": 0.999, "state_dict": s}},
    "settings of an average are no average": lambda s, z: {"state_dict": s, "ema": {"decay": 0.999}},
    "mmagic": lambda s, z: {"state_dict": {**under("generator.", s), "data_preprocessor.mean": torch.zeros(3)}},
    "mmagic, averaged": lambda s, z: {"state_dict": {
        **under("generator.", z), **under("generator_ema.", s), "step_counter": torch.tensor(5)}},
    "Lightning, model.": lambda s, z: {"state_dict": under("model.", s), "epoch": 3},
    "Lightning, net.": lambda s, z: {"state_dict": {**under("net.", s), "loss.vgg.weight": torch.zeros(3)}},
    "Lightning, averaged": lambda s, z: {"state_dict": {**under("model.", z), **under("ema_model.module.", s)}},
    "network_g.": lambda s, z: under("network_g.", s),
    "AveragedModel": lambda s, z: {"n_averaged": torch.tensor(5), **under("module.", s)},
    "parallel, compiled, wrapped": lambda s, z: {"state_dict": under("module._orig_mod.model.", s)},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings(wrapping, official, model, tmp_path):
    zeros = {key: value * 0 for key, value in official.items()}
    torch.save(WRAPPINGS[wrapping](official, zeros), tmp_path / "x.pth")
    found = read_weights(tmp_path / "x.pth")
    assert found.state.keys() == model.state_dict().keys() and found.network_g["type"] == "Restormer"
    assert all(torch.equal(found.state[key], value) for key, value in model.state_dict().items())


def test_small_floats_become_float32(official, tmp_path):
    for dtype in (torch.float8_e4m3fn, torch.bfloat16, torch.float16):
        save_file({key: value.to(dtype) for key, value in official.items()}, tmp_path / "small.safetensors")
        for value in read_weights(tmp_path / "small.safetensors").state.values():
            assert value.dtype == torch.float32


@pytest.mark.parametrize("change, words", [
    ({"extra.weight": torch.zeros(3)}, "1 keys unexpected .extra.weight"),
    ({"output.weight": torch.zeros(3, 16, 5, 5)}, "shapes differ"),
    ({"refinement.0.attn.qkv.weight": None}, "1 keys missing"),
    ({"latent.0.ffn.project_out.weight": None}, "resembles the networks of RestormerOfficial, but is none of them"),
])
def test_relatives_are_not_taken_for_it(official, tmp_path, change, words):
    state = {key: value for key, value in {**official, **change}.items() if value is not None}
    prefix = "body." if any(key.startswith("body.") for key in official) else ""
    for key, value in change.items():
        if value is None:
            state.pop(prefix + key, None)
    torch.save(state, tmp_path / "relative.pth")
    with pytest.raises(CheckpointError, match=f"relative.pth.*{words}"):
        read_weights(tmp_path / "relative.pth")


def test_archives_and_programs_are_named(official, tmp_path):
    torch.save(official, tmp_path / "in.pth")
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.write(tmp_path / "in.pth", "dual_pixel.pth")
    with pytest.raises(CheckpointError, match="zip archive of 1 file.s. .dual_pixel.pth.*Unpack it"):
        read_weights(tmp_path / "download.zip")
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 3, 3)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="TorchScript program.*state_dict"):
        read_weights(tmp_path / "script.pt")


@pytest.mark.parametrize("value, words", [
    (lambda: torch.eye(3).to_sparse(), "sparse"), (lambda: torch.zeros(2, dtype=torch.complex64), "complex64"),
    (lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), "quantized"),
    (lambda: torch.zeros(1).expand(1 << 20, 1 << 20), "would take 4,096.00 GiB of memory"),
    (lambda: torch.zeros(2, device="meta"), "meta"),
])
@pytest.mark.filterwarnings("ignore")
def test_odd_tensors(value, words, tmp_path):
    torch.save({"a": value()}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=words):
        read_weights(tmp_path / "odd.pth")


def test_files_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes(200_000_000))
    with pytest.raises(CheckpointError, match="what it packs would take 0.19 GiB of memory"):
        read_weights(path)
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}"
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head)
    with pytest.raises(CheckpointError, match="w says that it holds .1099511627776,. of float32"):
        read_weights(path)
    with h5py.File(tmp_path / "bomb.hdf5", "w") as file:
        file.attrs["layer_names"] = [b"a"]
        layer = file.create_group("a")
        layer.attrs["weight_names"] = [b"w"]
        layer.create_dataset("w", shape=(10 ** 12,), dtype="f4", chunks=(1024,))
    with pytest.raises(CheckpointError, match="would take 3,725.29 GiB of memory"):
        read_weights(tmp_path / "bomb.hdf5")


def pickled_list(path, data):
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("params.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + data)
    return path


class Call:
    """Pickles as a call of a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("value", [
    Call(np.ndarray, ((1 << 40,),)), Call(np.dtype, ("f4",)), [[1, 2], [3]], np.array([["a"]], dtype=object), "text",
])
def test_pickled_lists_hold_arrays_only(value, tmp_path):
    with pytest.raises(CheckpointError, match="pickle that holds more than arrays"):
        read_weights(pickled_list(tmp_path / "list.npz", pickle.dumps(value)))


def test_hdf5_links_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.arange(5.0)

    def write(member):
        with h5py.File(tmp_path / "model.hdf5", "w") as file:
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = [b"layer"]
            layer = group.create_group("layer")
            layer.attrs["weight_names"] = [b"w"]
            member(file, layer)
        return tmp_path / "model.hdf5"

    def external_link(file, layer):
        layer["w"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/secret")

    def external_values(file, layer):
        layer.create_dataset("w", shape=(16,), dtype="u1", external=[(str(tmp_path / "secret.h5"), 0, 16)])

    def virtual(file, layer):
        layout = h5py.VirtualLayout(shape=(5,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "secret", shape=(5,))
        layer.create_virtual_dataset("w", layout)

    def circle(file, layer):
        layer["w"] = h5py.SoftLink("/model_weights/layer/w")
    for member, words in ((external_link, "a link to the file .*secret.h5.*not followed"), (circle, "a link, which"),
                          (external_values, "lie in other files"), (virtual, "lie in other files")):
        with pytest.raises(CheckpointError, match=words):
            read_weights(write(member))


def test_the_converter_knows_our_own_files(model, tmp_path):
    ours = tmp_path / "best.safetensors"
    save_weights(ours, model, network_g=NETWORK, provenance={"run": "a run"})
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), str(ours), "-o",
                           str(tmp_path / "out.safetensors")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "best.safetensors: k3dn_plugin safetensors" in done.stdout and "width: 8" in done.stdout
    one, two = load_restorer(ours, device="cpu"), load_restorer(tmp_path / "out.safetensors", device="cpu")
    assert one.weights_hash == two.weights_hash and two.provenance == {"run": "a run"} and two.network_g == NETWORK


def test_formats_are_found_under_their_former_name():
    from k3dn_plugin.zoo.official import official_format as former
    assert former is official_format
