"""Weights in the package: rounded, checked, described, found by their file's name; what is said without any."""
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, TinyPairs

import k3dn_plugin as k3dn
from k3dn_plugin.commands import main
from k3dn_plugin.errors import CheckpointError, DataError, OptionError, StorageError
from k3dn_plugin.evaluation.run import evaluate_weights
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.zoo import release as release_module
from k3dn_plugin.zoo import sources
from k3dn_plugin.zoo.release import compare_outputs, release, rounded_state, without_paths
from k3dn_plugin.zoo.released import DEFAULT, default_weights, released_page, released_weights
from k3dn_plugin.zoo.weights import read_weights, save_weights

NETWORK = {"type": "EvaluationConv", "channels": 8}
PROVENANCE = {"run": "my_run", "recipe": "/home/somebody/options/my_run.yml", "options_hash": "abc", "iteration": 7,
              "samples_seen": 56, "data": {"type": "X", "name": "simulated"}, "data_hash": "d" * 16, "seed": 3}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of released weights of this test's own."""
    monkeypatch.setattr(sources, "RELEASED", tmp_path / "released")
    monkeypatch.setattr(release_module, "CHECKED_ON", 1)
    (tmp_path / "released").mkdir()
    return tmp_path / "released"


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "best.safetensors", EvaluationConv(), network_g=NETWORK, provenance=PROVENANCE)
    return tmp_path / "best.safetensors"


@pytest.fixture
def call(capsys):
    def run(*arguments):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()
    return run


def scored(weights, out):
    evaluate_weights(weights, TinyPairs(2), PROTOCOLS.build({"type": "dpdd16"}), out_dir=out, progress=False)
    return out / "summary.json"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_release_is_found_by_its_name(trained, folder, dtype):
    made = release(trained, "k3dn_tiny", dtype=dtype)
    assert sorted(path.name for path in folder.iterdir()) == [f"k3dn_tiny.{s}" for s in ("json", "md", "safetensors")]
    stored = read_weights("k3dn_tiny")
    assert {str(value.dtype) for value in stored.state.values()} == {f"torch.{dtype}"}
    assert made.path.stat().st_size < 0.7 * trained.stat().st_size
    loaded = k3dn.load_restorer("k3dn_tiny", device="cpu")
    assert {value.dtype for value in loaded.restorer.state_dict().values()} == {torch.float32}
    assert loaded.weights_hash == made.card["weights_hash"] and loaded.network_g == NETWORK
    original = k3dn.load_restorer(trained, device="cpu")
    left, right = np.random.default_rng(0).random((2, 64, 64, 3))
    error = np.mean((loaded.restore(left, right) - original.restore(left, right)) ** 2)
    assert 0 < error < 10 ** -5
    again, = released_weights()
    assert again.name == "k3dn_tiny" and again.card == json.loads(json.dumps(made.card))


def test_the_card_says_where_the_weights_come_from(trained, folder, tmp_path):
    limits = "Reflections, and blur above 12 pixels."
    release(trained, "k3dn_tiny", limits=limits)
    scores = [scored(trained, tmp_path / "before"), scored("k3dn_tiny", tmp_path / "after")]
    # A new card for what is released already: the weights stay as they are.
    before = (folder / "k3dn_tiny.safetensors").read_bytes()
    card = release("k3dn_tiny", "k3dn_tiny", scores=scores, limits=limits).card
    assert (folder / "k3dn_tiny.safetensors").read_bytes() == before
    assert [score["of"] for score in card["scores"]] == ["the weights before rounding", "the released file"]
    page = (folder / "k3dn_tiny.md").read_text(encoding="utf-8")
    for words in ("license: apache-2.0", "`my_run`", "stage not recorded, iteration 7",
                  "hash " + "d" * 16, limits, card["weights_hash"], "| 2 | dpdd16 | psnr |",
                  "float16; outputs agree with those of float32 to", "| seeds | 3 |"):
        assert words in page, words
    text = page + (folder / "k3dn_tiny.json").read_text(encoding="utf-8") + str(read_weights("k3dn_tiny").provenance)
    assert "/home" not in text


def test_a_card_that_is_not_whole_is_told_with_what_to_do(trained, folder, call, tmp_path):
    status, _, err = call("release", trained, "--name", "k3dn_tiny")
    assert status == 0 and err.startswith("note: the card lacks scores and limits") and err.count("\n") == 1
    assert "k3dn_tiny --name k3dn_tiny --scores results/k3dn_tiny/*/summary.json --limits limits.md" in err
    summary = scored("k3dn_tiny", tmp_path / "scores")
    assert "lacks limits;" in call("release", "k3dn_tiny", "--name", "k3dn_tiny", "--scores", summary)[2]
    assert "lacks" not in call("release", trained, "--name", "k3dn_tiny", "-o", tmp_path / "elsewhere")[2]
    assert call("release", "k3dn_tiny", "--name", "k3dn_tiny", "--scores", summary, "--limits", "Glass.")[2] == ""


@pytest.mark.parametrize("stages, said", [(["crops", "frames"], True), (["frames", "crops"], False), (None, False)])
def test_the_stage_that_the_weights_are_from(tmp_path, folder, call, stages, said):
    provenance = {**PROVENANCE, "stage": "crops", **({"stages": stages} if stages else {})}
    save_weights(tmp_path / "a.safetensors", EvaluationConv(), network_g=NETWORK, provenance=provenance)
    err = call("release", tmp_path / "a.safetensors", "--name", "k3dn_tiny")[2]
    assert ("from stage 'crops'" in err and "the last stage of their recipe is 'frames'" in err) == said
    assert "stage crops, iteration 7" in (folder / "k3dn_tiny.md").read_text(encoding="utf-8")


def test_a_damaged_file_is_released_over(trained, folder):
    made = release(trained, "k3dn_tiny")
    path, whole = made.path, made.path.read_bytes()
    for damaged in (b"", whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        release(trained, "k3dn_tiny")
        assert k3dn.load_restorer("k3dn_tiny", device="cpu").weights_hash == made.card["weights_hash"]


def test_released_weights_have_their_own_name(trained, folder, tmp_path):
    path = release(trained, "k3dn_tiny").path
    for source in ("k3dn_tiny", path):
        assert k3dn.load_restorer(source, device="cpu").name == "k3dn_tiny"
    shutil.copy(path, tmp_path / "copy.safetensors")
    assert k3dn.load_restorer(tmp_path / "copy.safetensors", device="cpu").name == "my_run"


def test_own_weights_of_a_released_name(trained, folder, tmp_path, monkeypatch, recwarn):
    made = release(trained, "k3dn_tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k3dn_tiny" / "pictures").mkdir(parents=True)   # holds no weights, so nothing is mistaken
    assert read_weights("k3dn_tiny").path == made.path and not recwarn.list
    own = k3dn.load_restorer(trained, device="cpu").save_pretrained("k3dn_tiny") / "model.safetensors"
    with pytest.warns(UserWarning, match="k3dn_tiny is taken for the released weights.* name it ./k3dn_tiny"):
        assert read_weights("k3dn_tiny").path == made.path
    for source in ("./k3dn_tiny", Path("k3dn_tiny"), str(tmp_path / "k3dn_tiny")):
        assert read_weights(source).path.resolve() == own.resolve()


def test_scores_must_be_of_these_weights(trained, tmp_path):
    torch.manual_seed(1)
    save_weights(tmp_path / "other.safetensors", EvaluationConv(), network_g=NETWORK, provenance={})
    summary = scored(tmp_path / "other.safetensors", tmp_path / "other")
    with pytest.raises(DataError, match="scores other weights"):
        release(trained, "k3dn_tiny", scores=[summary])
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="expected a summary.json"):
        release(trained, "k3dn_tiny", scores=[tmp_path])
    assert released_weights() == []


def test_a_summary_with_a_metric_without_a_value_and_one_of_wrong_types(trained, folder, tmp_path):
    path = scored(trained, tmp_path / "scores")
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"means": summary["means"] | {"lpips": None}}))
    made = release(trained, "mine", scores=[path])
    assert "| lpips | - | - |" in made.path.with_suffix(".md").read_text()
    for means in ([1.0], {"psnr": "high"}, {"psnr": None}, {}, None):
        path.write_text(json.dumps(summary | {"means": means}))
        with pytest.raises(DataError, match="expected a summary.json"):
            release(trained, "mine", scores=[path])


def test_what_is_not_released(trained, folder, monkeypatch):
    for name in ("K3DN", "../x", "", "a b"):
        with pytest.raises(OptionError, match="--name"):
            release(trained, name)
    with pytest.raises(OptionError, match="--dtype float32"):
        release(trained, "k3dn_tiny", dtype="float32")
    monkeypatch.setattr(release_module, "LEAST_DB", 150)
    with pytest.raises(OptionError, match="rounded to float16, the weights give outputs .* dB from"):
        release(trained, "k3dn_tiny")
    monkeypatch.undo()
    monkeypatch.setattr(release_module, "MOST_BYTES", 1000)
    with pytest.raises(CheckpointError, match="k3dn_tiny takes 0.0 MB; weights in the package may have 0.001"):
        release(trained, "k3dn_tiny", folder=folder)
    assert list(folder.iterdir()) == []
    with pytest.raises(OptionError, match="cannot; use --dtype bfloat16"):
        rounded_state({"a": torch.tensor([1e6])}, torch.float16)


def test_rounding_is_measured():
    torch.manual_seed(0)
    one, other = EvaluationConv().eval(), EvaluationConv().eval()
    assert compare_outputs(one, one, pairs=1) == pytest.approx(200)
    assert compare_outputs(one, other, pairs=1) < 40
    with torch.no_grad():
        other.load_state_dict(one.state_dict())
        other.wide.bias += 0.01
    assert compare_outputs(one, other, pairs=1) == pytest.approx(40, abs=1e-3)


def test_no_path_of_the_machine():
    assert without_paths({"a": ["/x/y/z.yml", "b/c"], "d": 3}) == {"a": ["z.yml", "b/c"], "d": 3}


def test_which_weights_are_taken_where_none_are_named(trained):
    with pytest.raises(OptionError, match="None come with this version, so give --weights FILE. `make demo`") as told:
        default_weights()
    for words in (str(told.value), released_page([])):
        assert "`k3dn photographs --source DIR`" in words and "then `k3dn train -opt k3dn_s_real`" in words
    shutil.copy(trained, sources.RELEASED / "a_net.safetensors")
    assert default_weights() == "a_net"
    shutil.copy(trained, sources.RELEASED / "b_net.safetensors")
    with pytest.raises(OptionError, match="one of a_net, b_net"):
        default_weights()
    shutil.copy(trained, sources.RELEASED / f"{DEFAULT}.safetensors")
    assert default_weights() == DEFAULT == "k3dn_s_real"


def test_restore_takes_the_released_weights(trained, call, tmp_path):
    from k3dn_plugin.data.images import read_image, write_image
    for seed, view in enumerate("lr"):
        write_image(tmp_path / f"{view}.png", np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))
    arguments = ("restore", "--left", tmp_path / "l.png", "--right", tmp_path / "r.png", "-o", tmp_path / "o.png")
    status, _, err = call(*arguments)
    assert status == 2 and "k3dn train -opt k3dn_s_real" in err and err.count("\n") == 1
    assert call("release", trained, "--name", DEFAULT)[0] == 0
    assert call(*arguments)[0] == 0
    first = read_image(tmp_path / "o.png")
    assert call(*arguments, "--weights", DEFAULT)[0] == 0
    assert np.array_equal(first, read_image(tmp_path / "o.png"))


def test_the_list_of_weights(trained, call, tmp_path):
    assert "No weights come with this version" in call("list", "--weights")[1]
    (tmp_path / "limits.txt").write_text("Glass.")
    status, out, _ = call("release", trained, "--name", DEFAULT, "--limits", tmp_path / "limits.txt", "--scores",
                          scored(trained, tmp_path / "scores"))
    assert status == 0 and "outputs agree with float32 to" in out
    status, page, _ = call("list", "--weights")
    assert status == 0 and "| `k3dn_s_real` | EvaluationConv |" in page and " dB psnr on " in page
    assert "takes `k3dn_s_real` where no weights are named" in page
    assert "Glass." in (sources.RELEASED / f"{DEFAULT}.md").read_text(encoding="utf-8")
    assert call("list", "--weights", "-o", tmp_path / "page.md")[0] == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page.rstrip() + "\n"


def test_a_damaged_card_is_an_error_and_a_missing_one_is_not(trained, folder):
    release(trained, "k3dn_tiny")
    (folder / "k3dn_tiny.json").write_text("{")
    with pytest.raises(CheckpointError, match="k3dn_tiny.json: the card of released weights cannot be read"):
        released_weights()
    (folder / "k3dn_tiny.json").unlink()
    assert "not scored yet" in released_page(released_weights())


def test_what_ships_is_whole(monkeypatch):
    """Whatever lies in the package's own folder: small, with a card that is of these weights."""
    monkeypatch.undo()
    for one in released_weights():
        loaded = k3dn.load_restorer(one.name, device="cpu")
        assert one.path.stat().st_size <= release_module.MOST_BYTES
        assert loaded.weights_hash == one.card["weights_hash"] and one.card["license"] == release_module.LICENSE
        assert one.card["limits"] and one.card["scores"] and one.path.with_suffix(".md").is_file()
        assert math.isfinite(one.card["provenance"]["rounding"]["least_db"])


def test_a_name_that_stands_for_something_else_is_refused(trained, folder):
    with pytest.raises(OptionError, match="center"):
        release(trained, "center")
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_told_as_such(trained, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        release(trained, "k3dn_tiny", folder=tmp_path / "file")


@pytest.mark.parametrize("rounding", [
    {}, {"dtype": "float16"}, {"dtype": "float16", "weights_hash": "x", "least_db": "60", "pairs": 4}])
def test_a_header_with_another_rounding_is_told(tmp_path, rounding):
    save_weights(tmp_path / "a.safetensors", EvaluationConv().half().float(), network_g=NETWORK,
                 provenance={**PROVENANCE, "rounding": rounding})
    with pytest.raises(CheckpointError, match="rounding"):
        release(tmp_path / "a.safetensors", "k3dn_tiny")
