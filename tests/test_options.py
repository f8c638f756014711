"""Option files: inheritance, overrides, checks that name the key and the nearest valid one."""
import textwrap
import typing

import pytest
from pydantic import BaseModel
from torch import nn

from k3dn_plugin.errors import OptionError, RegistryError
from k3dn_plugin.options import apply_override, differences, load_options, merge, parse_options
from k3dn_plugin.registry import ARCHS, MODULES


@ARCHS.register_module(name="OptionTestRestorer")
class OptionTestRestorer(nn.Module):
    def __init__(self, *, width: int = 8, window: tuple[int, int] = (6, 6), scale: float | None = None,
                 part: dict | None = None):
        super().__init__()


@MODULES.register_module(name="OptionTestPart")
class OptionTestPart(nn.Module):
    def __init__(self, *, channels: int, depth: int = 2):
        super().__init__()


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path
    return write


@pytest.fixture
def recipe(write):
    write("_base_/schedule.yml", """
        train:
          total_iter: 100
          optim_g: {type: Adam, lr: 1e-4, betas: [0.9, 0.99]}
          losses: {pixel: {type: L1Loss, weight: 1.0}}
    """)
    return write("recipe.yml", """
        _base_: _base_/schedule.yml
        name: recipe
        network_g: {type: OptionTestRestorer, width: 16}
        train: {total_iter: 50}
    """)


def test_inheritance_merges_by_key(recipe):
    options = load_options(recipe)
    assert options.train.total_iter == 50
    assert options.train.optim_g == {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}


def test_overrides_are_yaml_and_recorded(recipe):
    options = load_options(recipe, ["train.optim_g.lr=3e-4", "network_g.window=[18, 14]",
                                    "train.grad_clip=0.5"])
    assert options.train.optim_g["lr"] == 3e-4
    assert options.network_g["window"] == [18, 14]
    assert options.differences() == ["network_g.window: None -> [18, 14]",
                                     "train.grad_clip: None -> 0.5",
                                     "train.optim_g.lr: 0.0001 -> 0.0003"]
    assert options.hash() != load_options(recipe).hash()
    assert load_options(recipe).hash() == load_options(recipe).hash()


def test_another_type_replaces_the_arguments_of_the_first():
    base = {"loss": {"type": "CharbonnierLoss", "eps": 1e-3}, "keep": 1}
    assert merge(base, {"loss": {"type": "L1Loss"}}) == {"loss": {"type": "L1Loss"}, "keep": 1}
    assert merge(base, {"loss": {"_delete_": True, "x": 1}})["loss"] == {"x": 1}
    assert merge({}, {"a": [{"b": {"_delete_": True, "x": 1}}]}) == {"a": [{"b": {"x": 1}}]}
    raw = {"network_g": {"type": "A", "width": 3}}
    apply_override(raw, "network_g.type=B")
    assert raw == {"network_g": {"type": "B"}}


@pytest.mark.parametrize("override, message", [
    ("train.optim_g.lr", "expected key=value"),
    ("train.ema_deacy=0.9", "unknown option 'train.ema_deacy'. Did you mean 'ema_decay'"),
    ("train.total_iter='9'", "train.total_iter.*valid integer.*found '9'"),
    ("train.amp=half", "train.amp.*'bfloat16' or 'float16'"),
    ("network_g.widht=3", r"network_g.widht: is not an argument.*Did you mean 'width'"),
    ("network_g.width=wide", r"network_g.width: expected int, found 'wide'"),
    ("network_g.window=[18, 14, 3]", r"network_g.window.*expected tuple\[int, int\]"),
    ("train.losses.pixel.wieght=2", r"train.losses.pixel.wieght.*Did you mean 'weight'"),
    ("train.losses.pixel=3", "train.losses.pixel"),
    ("network_g.part={type: OptionTestPart, deptth: 3}", r"network_g.part.deptth.*Did you mean 'depth'"),
    ("network_g.part={type: OptionTestPart, depth: deep}", r"network_g.part.depth: expected int"),
    ("name.x=3", "name is 'recipe', not a mapping"),
    ("custom_imports=[no_such_module_here]", "'no_such_module_here' could not be imported"),
])
def test_wrong_keys_and_types_stop_at_once(recipe, override, message):
    with pytest.raises(OptionError, match=message):
        load_options(recipe, [override])


def test_unknown_component_names_the_file_and_near_names(recipe):
    with pytest.raises(RegistryError, match=r"recipe.yml.*(?s:.)*Did you mean 'OptionTestRestorer'"):
        load_options(recipe, ["network_g.type=OptionTestRestorr"])


def test_stages_must_add_up_and_are_checked(recipe):
    stage = {"name": "a", "total_iter": 20}
    raw = {"name": "x", "network_g": {"type": "OptionTestRestorer"},
           "train": {"total_iter": 50, "optim_g": {"type": "Adam"}, "losses": {}, "stages": [stage]}}
    with pytest.raises(OptionError, match="stages add up to 20"):
        parse_options(raw)
    stage.update(total_iter=50, network_g={"widht": 2})
    with pytest.raises(OptionError, match=r"train.stages\[0\].network_g.widht"):
        parse_options(raw)


def test_files_that_cannot_be_read(write, tmp_path):
    write("recipe.yml", "name: x\n")
    with pytest.raises(OptionError, match=r"no such option file. Did you mean 'recipe.yml'"):
        load_options(tmp_path / "recpie.yml")
    with pytest.raises(OptionError, match="the key 'name' stands twice"):
        load_options(write("twice.yml", "name: x\nname: y\n"))
    with pytest.raises(OptionError, match="bad.yml.*not valid YAML"):
        load_options(write("bad.yml", "name: [x\n"))
    with pytest.raises(OptionError, match="expected a mapping"):
        load_options(write("list.yml", "- x\n"))
    with pytest.raises(OptionError, match="'network_g' is missing"):
        load_options(tmp_path / "recipe.yml")
    write("a.yml", "_base_: b.yml\n")
    with pytest.raises(OptionError, match="circle: .*b.yml -> .*a.yml -> .*b.yml"):
        load_options(write("b.yml", "_base_: a.yml\n"))
    with pytest.raises(OptionError, match="circle"):
        load_options(write("self.yml", "_base_: [self.yml]\n"))


def test_inheritance_of_any_depth(recipe, write):
    for level in range(6):
        below = "recipe.yml" if level == 0 else f"level{level - 1}.yml"
        path = write(f"level{level}.yml", f"_base_: {below}\nname: level{level}\nnetwork_g: {{width: {level}}}\n")
    options = load_options(path)
    assert options.name == "level5" and options.network_g["width"] == 5 and options.train.total_iter == 50
    # The same base twice, side by side, is no circle.
    both = write("both.yml", "_base_: [level1.yml, level0.yml]\nname: both\n")
    assert load_options(both).network_g["width"] == 0


def test_merge_keys(write):
    path = write("merged.yml", """
        name: merged
        network_g: {type: OptionTestRestorer}
        train:
          total_iter: 6
          losses: {pixel: {type: L1Loss}}
          optim_g: &adam {type: Adam, lr: 1e-4, betas: [0.9, 0.99]}
          stages:
            - {name: a, total_iter: 3, optim_g: &low {<<: *adam, lr: 5e-5}}
            - {name: b, total_iter: 3, optim_g: {<<: [*low], weight_decay: 0.1}}
    """)
    first, second = load_options(path).train.stages
    assert first.optim_g == {"type": "Adam", "lr": 5e-5, "betas": [0.9, 0.99]}
    assert second.optim_g == {**first.optim_g, "weight_decay": 0.1}
    with pytest.raises(OptionError, match="line 3: the key 'lr' stands twice"):
        load_options(write("twice.yml", "a: &a {lr: 1}\nb:\n  {<<: *a, lr: 2, lr: 3}\n"))


def test_shipped_recipes_are_found_by_name(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = load_options("k3dn_dpdd")
    assert options.name == "k3dn_dpdd" and options.source().is_file()
    assert load_options("k3dn_dpdd.yml").hash() == options.hash()
    mine = load_options(write("mine.yml", "_base_: k3dn_demo\nname: mine\n"))
    assert mine.name == "mine" and mine.network_g["base_channels"] == 16
    write("k3dn_dpdd", "name: own\nnetwork_g: {type: OptionTestRestorer}\n")
    assert load_options("k3dn_dpdd").name == "own"
    with pytest.raises(OptionError, match="no recipe of that name is shipped. Did you mean 'k3dn_dpdd'"):
        load_options("k3dn_dppd")


def test_an_installed_copy_finds_its_own_recipes(monkeypatch, tmp_path):
    import shutil

    from k3dn_plugin import files
    package = tmp_path / "site-packages" / "k3dn_plugin"
    shutil.copytree(files.shared_folder("options"), package / "_share" / "options")
    (tmp_path / "site-packages" / "options").mkdir()  # of another package
    monkeypatch.setattr(files, "PACKAGE", package)
    assert load_options("k3dn_s_dpdd").source() == package / "_share" / "options" / "k3dn_s_dpdd.yml"


def test_paths_are_expanded(write, monkeypatch, tmp_path):
    write("home/x.yml", "name: x\nnetwork_g: {type: OptionTestRestorer}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_options("~/x.yml").name == load_options("$HOME/x.yml").name == "x"


@pytest.mark.parametrize("text, message", [
    ("_base_: 3\n", "_base_: expected an option file or a list of them, found 3"),
    ("_base_: [[a.yml]]\n", "_base_: expected an option file"),
    ("network_g: &a {type: OptionTestRestorer, part: *a}\n", "network_g.part holds itself, by an alias"),
    ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi")), "more than 100,000"),
    ("network_g: {{ NETWORK }}\n", "not valid YAML.*unhashable key"),
    ("a: " + "[" * 3000, "nested too deeply"), ("a: " + "{a: " * 300 + "1" + "}" * 300, "nested too deeply"),
    ("num_threads: !!set {96}\n", "num_threads: expected text, a number, a list or a mapping, found set"),
    ("name: !!binary aGk=\n", "name: expected text.*found bytes"), ("name: !!bool abc\n", "not valid YAML"),
    ("manual_seed: " + "9" * 5000, "not valid YAML"), ("name: 2024-05-01\n", "name is a date in YAML.*in quotes"),
    ("1: 2\n", "expected keys that are text, found 1"), ("train: {total_iter: .nan}\n", "not a number"),
    ("<<: 5\n", "not valid YAML"), ('name: "\\ud800"\n', "name: .*no text in Unicode"),
    ('path: {experiments_root: "a\\udc00"}\n', "path.experiments_root: .*no text in Unicode")])
def test_odd_yaml_is_one_clear_error(write, text, message):
    with pytest.raises(OptionError, match=message):
        load_options(write("odd.yml", "") if text is None else _raw(write, text))


def _raw(write, text):
    path = write("odd.yml", "")
    path.write_text(text)
    return path


def test_files_that_are_no_files(tmp_path):
    for odd in (tmp_path, "/dev/null"):
        with pytest.raises(OptionError, match="is not a file"):
            load_options(odd)
    (tmp_path / "loop.yml").symlink_to(tmp_path / "loop.yml")
    with pytest.raises(OptionError, match="loop.yml"):
        load_options(tmp_path / "loop.yml")
    (tmp_path / "big.yml").write_text("# " + "x" * 5_000_000)
    with pytest.raises(OptionError, match="5,000,002 bytes"):
        load_options(tmp_path / "big.yml")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/abs", "../x", "a\\b", "a\nb", "a\0b", "x" * 300, " ",
                                  "a\udcff", "\ud800"])
def test_a_name_is_that_of_a_folder(recipe, name):
    with pytest.raises(OptionError, match="name: .*experiments_root"):
        load_options(recipe).with_changes({"name": name})


def test_a_custom_import_that_ends_the_program(recipe, write, monkeypatch, tmp_path):
    write("quits_at_once.py", "import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OptionError, match="'quits_at_once' could not be imported .it calls sys.exit"):
        load_options(recipe, ["custom_imports=[quits_at_once]"])


def test_every_key_is_described():
    from k3dn_plugin.option_schema import OptionKeys

    def blocks(model, path):
        for name, field in model.model_fields.items():
            assert field.description and len(field.description) > 10, f"{path}{name}"
            assert field.description[0].islower() or field.description.startswith(("TensorBoard", "BasicSR"))
            for inner in (field.annotation, *typing.get_args(field.annotation)):
                for found in (inner, *typing.get_args(inner)):
                    if isinstance(found, type) and issubclass(found, BaseModel):
                        blocks(found, f"{path}{name}.")
    blocks(OptionKeys, "")


def test_differences_of_nested_structures():
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1], "d": None}) == ["a.b: 1 -> 2"]


def test_options_survive_a_round_trip(recipe):
    options = load_options(recipe)
    assert parse_options(options.as_dict()).hash() == options.hash()
