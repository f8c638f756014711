"""tools/test.py and tools/restore.py as a user meets them, good and bad files alike."""
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, EvaluationIdentity, TinyPairs

from k3dn_plugin.commands import main
from k3dn_plugin.data.images import encode_image, read_image, write_image
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.registry import DATASETS
from k3dn_plugin.zoo.weights import save_weights

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def call(capsys):
    """Runs a tool in this process: `(status, stdout, stderr)`."""
    def run(name, *arguments):
        try:
            status = main([name, *(str(a) for a in arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()
    return run


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "models" / "best.safetensors"
    save_weights(path, EvaluationIdentity(), network_g={"type": "EvaluationIdentity"},
                 provenance={"run": "tiny", "origin": "trained here"})
    return path


def image(bits=16, size=(48, 64), seed=0, channels=3):
    high = 2 ** bits
    return np.random.default_rng(seed).integers(0, high, (*size, 3)[:2 + (channels == 3)],
                                                dtype=np.uint16 if bits == 16 else np.uint8)


@pytest.fixture
def pair(tmp_path):
    """Writes a pair and returns its paths."""
    def write(bits=16, size=(48, 64), folder="in", name="a", **more):
        paths = [tmp_path / folder / f"{name}_{view}.png" for view in "LR"]
        for seed, path in enumerate(paths):
            write_image(path, image(bits, size, seed, **more))
        return paths
    return write


@DATASETS.register_module()
class EvaluationToolPairs(TinyPairs):
    def __init__(self, *, store: str = "", count: int = 2):
        super().__init__(count)


# --- restore ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bits", [8, 16])
def test_restore_keeps_bit_depth_and_values(call, pair, weights, tmp_path, bits):
    left, right = pair(bits)
    status, out, err = call("restore", "--left", left, "--right", right, "-o", tmp_path / "out.png",
                            "--weights", weights)
    assert status == 0 and err == "" and f"{bits} bit, whole" in out
    result = read_image(tmp_path / "out.png", bits=bits)
    mean = (read_image(left).astype(float) + read_image(right).astype(float)) / 2
    assert np.abs(result - mean).max() <= 0.51


def test_restore_bits_center_tiles_ensemble_and_bf16(call, pair, weights, tmp_path):
    left, right = pair(8, size=(70, 90))
    center = tmp_path / "c.png"
    write_image(center, image(8, (70, 90), seed=9))
    arguments = ("restore", "--left", left, "--right", right, "--center", center, "--weights", weights)
    assert call(*arguments, "-o", tmp_path / "a.png", "--bits", 16)[0] == 0
    assert np.array_equal(read_image(tmp_path / "a.png", bits=16), read_image(center).astype(int) * 257)
    status, out, _ = call(*arguments, "-o", tmp_path / "b.png", "--tile", 40, "--self-ensemble")
    assert status == 0 and "tiles of 48 x 40" in out
    assert np.array_equal(read_image(tmp_path / "b.png"), read_image(center))
    assert call(*arguments, "-o", tmp_path / "c2.png", "--bf16", "--max-memory-gb", 100)[0] == 0


def test_restore_turned_camera(call, tmp_path):
    torch.manual_seed(3)
    network = EvaluationConv().eval()
    weights = tmp_path / "conv.safetensors"
    save_weights(weights, network, network_g={"type": "EvaluationConv"}, provenance={})
    frames = {view: image(16, (64, 48), seed) for seed, view in enumerate("LR")}
    for view, frame in frames.items():
        write_image(tmp_path / f"{view}.png", frame)
    arguments = ("restore", "--left", tmp_path / "L.png", "--right", tmp_path / "R.png", "--weights", weights)
    status, _, err = call(*arguments, "-o", tmp_path / "x.png")
    assert status == 0 and "--disparity-axis y" in err
    status, _, err = call(*arguments, "-o", tmp_path / "y.png", "--disparity-axis", "y")
    assert status == 0 and err == ""
    turned = np.concatenate([np.rot90(frames[view]) for view in "LR"], -1).transpose(2, 0, 1)
    with torch.no_grad():
        expected = network(torch.from_numpy(turned.astype(np.float32) / 65535)[None])[0].clamp(0, 1) * 65535
    expected = np.rot90(expected.permute(1, 2, 0).numpy(), -1)
    assert np.abs(read_image(tmp_path / "y.png") - expected).max() <= 1
    assert not np.array_equal(read_image(tmp_path / "x.png"), read_image(tmp_path / "y.png"))


def test_restore_grey_files(call, pair, weights, tmp_path):
    left, right = pair(16, channels=1)
    arguments = ("--left", left, "--right", right, "-o", tmp_path / "g.png", "--weights", weights)
    assert call("restore", *arguments)[0] == 0
    assert read_image(tmp_path / "g.png", bits=16, gray=True).shape == (48, 64, 1)


def test_restore_folders(call, tmp_path, weights):
    for name in ("one", "two"):
        write_image(tmp_path / "l" / f"{name}_L.png", image())
        write_image(tmp_path / "r" / f"{name}_R.png", image(seed=1))
    arguments = ("restore", "--left", tmp_path / "l", "--right", tmp_path / "r", "--weights", weights)
    assert call(*arguments, "-o", tmp_path / "out")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]
    (tmp_path / "r" / "two_R.png").unlink()
    write_image(tmp_path / "l" / "three_L.png", image())
    (tmp_path / "r" / "three_R.png").write_bytes(b"damaged")
    status, _, err = call(*arguments, "-o", tmp_path / "out2")
    assert status == 2 and "two_L.png has no right view in" in err and "three_R.png: not an image" in err
    assert "2 of 3 pairs could not be restored" in err
    assert [p.name for p in (tmp_path / "out2").iterdir()] == ["one.png"]
    (tmp_path / "r" / "one_R.png").unlink()
    (tmp_path / "r" / "three_R.png").unlink()
    write_image(tmp_path / "r" / "four_R.png", image())
    status, _, err = call(*arguments, "-o", tmp_path / "out3")
    assert status == 2 and "four_R.png has no left view" in err or "has no right view" in err
    assert not (tmp_path / "out3").exists()


def test_restore_names_that_look_like_endings(call, tmp_path, weights):
    names = ["shot_a.png", "shot_b.png", "shot_c.png", "shot_l.png"]
    for view, seed in (("l", 0), ("r", 1)):
        for name in names:
            write_image(tmp_path / view / name, image(seed=seed))
        (tmp_path / view / "._shot_a.png").write_bytes(b"left behind")
    arguments = ("restore", "--left", tmp_path / "l", "--right", tmp_path / "r", "--weights", weights)
    assert call(*arguments, "-o", tmp_path / "out")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names


def test_restore_numbers_of_fewer_bits(call, tmp_path, weights):
    for view, seed in (("l", 0), ("r", 1)):
        write_image(tmp_path / f"{view}16.png", image(seed=seed) >> 4 << 4)
        write_image(tmp_path / f"{view}12.png", image(seed=seed) >> 4)

    def restored(bits, *more):
        status, _, err = call("restore", "--left", tmp_path / f"l{bits}.png", "--right", tmp_path / f"r{bits}.png",
                              "--weights", weights, "-o", tmp_path / "o.png", *more)
        return status, err, read_image(tmp_path / "o.png").astype(int) if status == 0 else None
    status, err, _ = restored(12)
    assert status == 0 and "--full-scale 4095" in err
    status, err, twelve = restored(12, "--full-scale", 4095)
    assert status == 0 and "full-scale" not in err and 255 < twelve.max() <= 4095
    assert abs(twelve / 4095 - restored(16)[2] / 65535).max() < 3e-3
    assert restored(16, "--full-scale", 4095)[0] == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_restored_pictures_are_shown_as_their_inputs(call, tmp_path, weights, suffix):
    from PIL import Image, ImageCms
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(100_000)
    profile = len(profile).to_bytes(4, "big") + profile[4:]  # more than one segment of a JPEG file holds
    exif = Image.Exif()
    exif[0x112] = 6
    for view, seed in (("left", 0), ("right", 1)):
        picture = Image.fromarray((image(seed=seed) >> 8).astype(np.uint8))
        picture.save(tmp_path / f"{view}{suffix}", exif=exif, icc_profile=profile)
    arguments = ("restore", "--left", tmp_path / f"left{suffix}", "--right", tmp_path / f"right{suffix}",
                 "--weights", weights)
    for out in (".png", ".jpg", ".tif"):
        assert call(*arguments, "-o", tmp_path / f"out{out}")[0] == 0
        with Image.open(tmp_path / f"out{out}") as shown:
            assert shown.info["icc_profile"] == profile and shown.getexif()[0x112] == 6
            shown.load()
        assert read_image(tmp_path / f"out{out}").shape[:2] == picture.size[::-1]
    status, _, err = call(*arguments, "-o", tmp_path / "out.bmp")
    assert status == 0 and "hold no color profile" in err


def broken(tmp_path, pair):
    """(arguments, words of the message) for what goes wrong with files."""
    left, right = pair()
    small = pair(size=(40, 64), name="small")[1]
    eight = pair(8, name="eight")[1]
    grey = pair(channels=1, name="grey")[1]
    cut = tmp_path / "cut.png"
    cut.write_bytes(encode_image(image(), ".png")[:2000])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "a_file").write_text("")
    out = tmp_path / "o.png"
    return {
        "missing": ((left, tmp_path / "nowhere.png", out), ("--right", "nowhere.png", "no such file")),
        "same file": ((left, left, out), ("one and the same", "two views")),
        "size": ((left, small, out), ("differ in size", "64 x 48", "64 x 40", "small_R.png")),
        "depth": ((left, eight, out), ("differ in bit depth", "16 bit", "8 bit", "eight_R.png")),
        "channels": ((left, grey, out), ("differ in channels", "grey_R.png")),
        "truncated": ((left, cut, out), ("cut.png", "cut off")),
        "empty": ((left, empty, out), ("empty.png",)),
        "file and folder": ((left, tmp_path / "in", out), ("folders for all",)),
        "empty folder": ((tmp_path / "hollow", tmp_path / "in", tmp_path / "o"), ("hollow", "no image")),
        "unwritable": ((left, right, tmp_path / "a_file" / "o.png"), ("could not write", "a_file")),
        "overwrites input": ((left, right, right), ("one of the inputs",)),
        "not 16 bit": ((left, right, tmp_path / "o.jpg"), ("o.jpg", "16-bit", "*.png")),
    }


@pytest.mark.parametrize("fault", ["missing", "same file", "size", "depth", "channels", "truncated", "empty",
                                   "file and folder", "empty folder", "unwritable", "overwrites input",
                                   "not 16 bit"])
def test_restore_bad_files(call, pair, weights, tmp_path, fault):
    (left, right, out), words = broken(tmp_path, pair)[fault]
    before = read_image(right) if fault == "overwrites input" else None
    status, _, err = call("restore", "--left", left, "--right", right, "-o", out, "--weights", weights)
    assert status == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err
    if before is None:
        assert not out.exists()
    else:
        assert np.array_equal(read_image(right), before)


def test_restore_bad_weights_and_settings(call, pair, weights, tmp_path):
    left, right = pair()
    arguments = ("restore", "--left", left, "--right", right, "-o", tmp_path / "o.png")
    status, _, err = call(*arguments, "--weights", tmp_path / "models" / "bset.safetensors")
    assert status == 2 and "best.safetensors" in err
    status, _, err = call(*arguments, "--weights", left)
    assert status == 2 and "a_L.png" in err
    status, _, err = call(*arguments, "--weights", weights, "--max-memory-gb", "0.001")
    assert status == 2 and "too little" in err
    assert not (tmp_path / "o.png").exists()


def test_restore_notes_identical_views(call, weights, tmp_path):
    for view in "LR":
        write_image(tmp_path / f"{view}.png", image())
    status, _, err = call("restore", "--left", tmp_path / "L.png", "--right", tmp_path / "R.png",
                          "-o", tmp_path / "o.png", "--weights", weights)
    assert status == 0 and "same pixels" in err


# --- test ------------------------------------------------------------------------------------------------

RECIPE = """
name: tiny_run
network_g: {type: EvaluationIdentity}
datasets: {val: {type: EvaluationToolPairs, store: somewhere}}
val: {protocol: full_float}
path: {experiments_root: %s}
"""


@pytest.fixture
def recipe(tmp_path, weights):
    """An option file whose run has been trained."""
    path = tmp_path / "tiny.yml"
    path.write_text(RECIPE % (tmp_path / "experiments"))
    trained = tmp_path / "experiments" / "tiny_run" / "models" / "best.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(weights.read_bytes())
    return path


def test_test_scores_the_run_of_a_recipe(call, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = call("test", "-opt", recipe, "--save-pictures", 1)
    assert status == 0, err
    folder = tmp_path / "results" / "tiny_run" / "full_float"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["means"]["psnr"] == summary["means"]["input_psnr"]
    assert summary["provenance"]["weights"]["origin"] == "trained here"
    assert f"{summary['means']['psnr']:.4f}" in out and "results/tiny_run/full_float/per_image.csv" in out
    assert (folder / "pictures" / "scene_00.png").exists()
    with open(folder / "per_image.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    status, out, _ = call("test", "-opt", recipe, "--save-pictures", 1)
    assert status == 0 and "2 of 2 images had been scored before" in out


def test_test_takes_weights_named_as_basicsr_does(call, recipe, weights, tmp_path):
    named = f"path.pretrain_network_g={tmp_path / 'nowhere.safetensors'}"
    status, _, err = call("test", "-opt", recipe, "--set", named, "--out", tmp_path / "r")
    assert status == 2 and "nowhere.safetensors" in err
    status, out, _ = call("test", "-opt", recipe, "--set", f"path.pretrain_network_g={weights}",
                          "--out", tmp_path / "r")
    assert status == 0 and f"scoring {weights}" in out


def test_test_other_protocol_metrics_and_weights(call, recipe, weights, tmp_path):
    status, out, err = call("test", "-opt", recipe, "--weights", weights, "--protocol", "ifan8", "--metrics",
                            "ssim_gaussian11", "--out", tmp_path / "scores", "--tile", 40, "--self-ensemble",
                            "--set", "datasets.val.count=1")
    assert status == 0, err
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["images"] == 1 and summary["protocol"]["name"] == "ifan8" and summary["tiled_images"] == 1
    assert "ssim_gaussian11" in summary["means"] and summary["provenance"]["settings"]["self_ensemble"]


def test_test_chooses_a_protocol_that_fits_the_data(call, weights, tmp_path):
    for bits, name in ((8, "full_float"), (16, "dpdd16")):
        store = tmp_path / f"{bits}.lmdb"
        with StoreWriter(store, dataset="mine", facts={}) as writer:
            writer.add("one", {view: image(bits, seed=n) for n, view in enumerate(("left", "right", "sharp"))})
            writer.finish()
        arguments = ("--weights", weights, "--data", store, "--out", tmp_path / name)
        status, out, err = call("test", *arguments)
        assert status == 0 and f"1 images by {name}" in out, err
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert len(summary["provenance"]["data_hash"]) == 16 and summary["protocol"]["name"] == name
    status, _, err = call("test", "--weights", weights, "--data", tmp_path / "8.lmdb", "--protocol", "dpdd16")
    assert status == 2 and "16-bit frames, mine holds 8-bit" in err


def test_test_errors(call, recipe, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = {
        (): "Give -opt FILE",
        ("--weights", weights): "--data STORE",
        ("--weights", weights, "--set", "a=b"): "-opt FILE",
        ("-opt", recipe, "--protocol", "dpdd61"): "dpdd16",
        ("-opt", recipe, "--metrics", "ssim"): "ssim_uniform7",
        ("-opt", recipe, "--set", "name=other"): "other has not been trained",
        ("-opt", tmp_path / "tony.yml"): "tiny.yml",
        ("--weights", weights, "--data", tmp_path / "nowhere.lmdb"): "nowhere.lmdb",
    }
    for arguments, words in cases.items():
        status, _, err = call("test", *arguments)
        assert status == 2 and err.startswith("error: ") and words in err, (arguments, err)
    assert not (tmp_path / "results").exists()


# --- as programs -----------------------------------------------------------------------------------------

def test_tools_run_as_programs(pair, tmp_path):
    """From any folder, without the package installed: a small K3DN restores a pair."""
    from k3dn_plugin.archs.k3dn_arch import K3DN
    network_g = {"type": "K3DN", **K3DN.tiny_arguments}
    from k3dn_plugin.registry import ARCHS
    weights = tmp_path / "k3dn.safetensors"
    save_weights(weights, ARCHS.build(network_g), network_g=network_g, provenance={})
    left, right = pair(size=(100, 120))
    command = [sys.executable, TOOLS / "restore.py", "--left", left, "--right", right, "--weights", weights]
    done = subprocess.run([*command, "-o", tmp_path / "o.png"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "o.png", bits=16).shape == (100, 120, 3)
    done = subprocess.run([sys.executable, TOOLS / "test.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: what shall be scored?")


def test_doing_nothing_is_scored_without_weights(tiny_store, tmp_path):
    from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
    from k3dn_plugin.evaluation.run import evaluate_weights
    from k3dn_plugin.registry import PROTOCOLS
    from k3dn_plugin.zoo.baseline import DO_NOTHING
    dataset = DualPixelDataset(store=str(tiny_store))
    result = evaluate_weights(DO_NOTHING, dataset, PROTOCOLS.build({"type": "dpdd16"}), out_dir=tmp_path)
    for row, sample in zip(result.rows, (dataset[i] for i in range(len(dataset)))):
        error = float(((sample["center"] - sample["gt"]).double() ** 2).mean())
        assert row.scores["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-4)
