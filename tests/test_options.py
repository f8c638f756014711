"""Option files: inheritance, overrides, checks that name the key and the nearest valid one."""
import textwrap

import pytest
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
    with pytest.raises(OptionError, match="circle"):
        load_options(write("b.yml", "_base_: a.yml\n"))


def test_differences_of_nested_structures():
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1], "d": None}) == ["a.b: 1 -> 2"]


def test_options_survive_a_round_trip(recipe):
    options = load_options(recipe)
    assert parse_options(options.as_dict()).hash() == options.hash()
