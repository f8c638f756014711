"""Option files: YAML with `_base_` inheritance, `--set a.b=c` overrides, every key typed and checked.

options = load_options("k3dn_dpdd", overrides=["train.optim_g.lr=1e-4"])      # shipped, or a path
options.train.optim_g["lr"], options.hash(), options.differences()
"""
import copy
import hashlib
import json
import os
import typing
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, PrivateAttr, ValidationError

from k3dn_plugin.errors import OptionError, RegistryError
from k3dn_plugin.option_files import find_option_file, merge, merged_value, parse_yaml, read_inherited
from k3dn_plugin.option_schema import DatasetOptions, OptionKeys, StageOptions, TrainOptions
from k3dn_plugin.registry import ARCHS, DATASETS, LOSSES, MODULES, PROTOCOLS, check_arguments, near

__all__ = ["Options", "apply_override", "check_components", "check_name", "differences", "load_options", "merge",
           "parse_options", "read_inherited"]


class Options(OptionKeys):
    """A checked option file. `as_dict()` is what is stored with a run, `hash()` its fingerprint."""

    _source: Path | None = PrivateAttr(None)
    _recipe: dict[str, Any] = PrivateAttr(default_factory=dict)
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved options as plain data, defaults included.

        Keys that a stage leaves out stay out: they are those of `train`, which null would replace.
        """
        plain = self.model_dump(mode="python")
        if self.train is not None and self.train.stages:
            plain["train"]["stages"] = [stage.model_dump(mode="python", exclude_unset=True)
                                        for stage in self.train.stages]
        return plain

    @property
    def training(self) -> TrainOptions:
        """The block `train`.

        Raises:
            OptionError: the file has none.
        """
        if self.train is None:
            raise OptionError(f"{self._source or self.name}: expected a block `train` with optimizer and losses; found "
                              "none. Add one, or inherit from a shipped recipe by `_base_`")
        return self.train

    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the resolved options."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def source(self) -> Path | None:
        """Return the option file, or None for options made from a mapping."""
        return self._source

    def differences(self) -> list[str]:
        """Return `key: recipe's value -> value here`, a line a key that `--set` changed."""
        return differences(self._recipe, self._raw)

    def with_changes(self, changes: Mapping[str, Any]) -> "Options":
        """Return a checked copy with `changes` merged in, as a further inheriting file would."""
        options = parse_options(merge(self._raw, changes), source=self._source)
        options.set_origin(self._source, options._raw, recipe=self._recipe)
        return options

    def set_origin(self, source: Path | None, raw: dict[str, Any], *, recipe: dict[str, Any]) -> None:
        """Note the file that the options come from, its plain data, and those before overrides."""
        self._source, self._raw, self._recipe = source, raw, recipe


def load_options(path: str | Path, overrides: Sequence[str] = (), *, longer: bool = False) -> Options:
    """Read, inherit, override and check an option file.

    Args:
        path: a YAML file, or the name of a shipped recipe (`k3dn_dpdd`).
        overrides: `"train.optim_g.lr=1e-4"`, the value parsed as YAML.
        longer: where `train.total_iter` is more than the stages add up to, the last one takes the rest: for a
            finished run that goes on.

    Raises:
        OptionError: names the file and key, what was expected, and the nearest valid key.
        RegistryError: a `type` is not registered.
    """
    path = find_option_file(path)
    recipe = read_inherited(path)
    raw = copy.deepcopy(recipe)
    for override in overrides:
        apply_override(raw, override)
    if longer:
        _lengthen(raw)
    options = parse_options(raw, source=path)
    options.set_origin(path, copy.deepcopy(raw), recipe=recipe)
    return options


def parse_options(raw: Mapping[str, Any], source: Path | None = None) -> Options:
    """Check plain data against the schema and the components' signatures.

    Raises:
        OptionError, RegistryError: as `load_options`.
    """
    where = f"{source}: " if source else ""
    raw = copy.deepcopy(dict(raw))
    try:
        options = Options.model_validate(raw)
    except ValidationError as error:
        raise OptionError(where + _explain(error)) from None
    options.set_origin(source, raw, recipe=raw)
    try:
        check_name(options.name)
        for module in options.custom_imports:
            _import_custom(module)
        check_components(options)
    except (OptionError, RegistryError) as error:
        raise type(error)(where + str(error)) from None
    return options


def _lengthen(raw: dict[str, Any]) -> None:
    """Give the last stage, and its last phase, what `train.total_iter` has more than they add up to."""
    def number(block: Any, key: str) -> int:
        value: Any = cast("dict[str, Any]", block).get(key) if isinstance(block, dict) else None
        return value if isinstance(value, int) else 0

    def grow(blocks: Any, key: str, wanted: int) -> None:
        if isinstance(blocks, list) and blocks:
            numbers = [number(block, key) for block in cast("list[Any]", blocks)]
            if all(numbers):
                blocks[-1][key] += max(wanted - sum(numbers), 0)

    train: Any = raw.get("train")
    if not number(train, "total_iter"):
        return
    grow(train.get("stages"), "total_iter", train["total_iter"])
    last: Any = train["stages"][-1] if isinstance(train.get("stages"), list) and train["stages"] else train
    if number(last, "total_iter"):
        grow(last.get("phases"), "iterations", last["total_iter"])


def check_name(name: str) -> None:
    """Raise `OptionError` unless `name` can name a run's folder, within the folder of all runs."""
    reason = None
    if not name.strip() or name.strip(".") == "":
        reason = "names no folder of its own"
    elif any(mark in name for mark in "/\\\0") or any(ord(mark) < 32 or 0xd800 <= ord(mark) < 0xe000 for mark in name):
        reason = "has a character that no folder's name may have"
    elif len(os.fsencode(name)) > 200:
        reason = f"is {len(os.fsencode(name))} bytes long; a folder's name has at most 200 here"
    if reason:
        raise OptionError(f"name: {name[:80]!r} {reason}. It names the run's folder in path.experiments_root; "
                          "choose a plain word such as k3dn_dpdd_2, and another place by path.experiments_root")


def _import_custom(module: str) -> None:
    try:
        import_module(module)
    except (Exception, SystemExit) as error:  # a module that calls sys.exit would end the program without a word
        said = "it calls sys.exit" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        raise OptionError(f"custom_imports: {module!r} could not be imported ({said}). It must be on "
                          "PYTHONPATH, or in an installed package") from error


def check_components(options: Options) -> None:
    """Check every component's `type` and arguments; nothing is built and no data is read."""
    check_arguments(ARCHS, options.network_g, path="network_g")
    for split in ("train", "val"):
        dataset = getattr(options.datasets, split)
        if dataset is not None:
            check_arguments(DATASETS, dataset.arguments(), path=f"datasets.{split}")
    if options.datasets.val is not None:
        PROTOCOLS.get(options.val.protocol)
    if options.train is None:
        return
    _check_training(options.train, "train")
    total = sum(stage.total_iter for stage in options.train.stages or ())
    if options.train.stages and total != options.train.total_iter:
        raise OptionError(f"train.total_iter is {options.train.total_iter}, but the stages add up to "
                          f"{total}; make them agree. A finished run goes on for longer with --resume auto and "
                          "more train.total_iter: its last stage continues")
    for i, stage in enumerate(options.train.stages or ()):
        path = f"train.stages[{i}]"
        _check_training(stage, path)
        if stage.network_g is not None:
            check_arguments(ARCHS, merge(options.network_g, stage.network_g), path=f"{path}.network_g")
        if stage.datasets_train is not None and options.datasets.train is not None:
            changed = merge(options.datasets.train.model_dump(), stage.datasets_train)
            try:
                dataset = DatasetOptions.model_validate(changed)
            except ValidationError as error:
                raise OptionError(f"{path}.datasets_train: {_explain(error)}") from None
            check_arguments(DATASETS, dataset.arguments(), path=f"{path}.datasets_train")


def _check_training(block: TrainOptions | StageOptions, path: str) -> None:
    for name, spec in (block.losses or {}).items():
        check_arguments(LOSSES, spec, path=f"{path}.losses.{name}")
    if block.reblur is not None:
        check_arguments(MODULES, block.reblur, path=f"{path}.reblur")


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Apply `a.b.0.c=value` in place; the value is parsed as YAML."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise OptionError(f"--set {override}: expected key=value, e.g. train.optim_g.lr=1e-4")
    value = parse_yaml(text, f"--set {override[:200]}")
    place = raw
    for depth, key in enumerate(keys[:-1]):
        place = _step(place, key, ".".join(keys[:depth + 1]), override)
    last = keys[-1]
    if isinstance(place, list):
        entries = cast("list[Any]", place)
        entries[_index(entries, last, dotted, override)] = merged_value({}, value)
    elif last == "type" and place.get("type") not in (None, value):
        # The other arguments belong to the component that is replaced.
        place.clear()
        place["type"] = value
    else:
        before: Any = place.get(last)
        place[last] = merged_value(cast("Mapping[str, Any]", before) if isinstance(before, Mapping) else {}, value)


def _step(place: Any, key: str, dotted: str, override: str) -> Any:
    if isinstance(place, list):
        entries = cast("list[Any]", place)
        return entries[_index(entries, key, dotted, override)]
    if place.get(key) is None:
        place[key] = {}
    if not isinstance(place[key], (dict, list)):
        raise OptionError(f"--set {override}: {dotted} is {place[key]!r}, not a mapping")
    return place[key]


def _index(place: list[Any], key: str, dotted: str, override: str) -> int:
    if not key.isdecimal() or int(key) >= len(place):
        raise OptionError(f"--set {override}: {dotted}: expected an index from 0 to {len(place) - 1}")
    return int(key)


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return lines `key: before -> after` for what differs between two plain structures."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        old, new = cast("Mapping[str, Any]", before), cast("Mapping[str, Any]", after)
        lines: list[str] = []
        for key in sorted({*old, *new}, key=str):
            lines += differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return lines
    return [] if before == after else [f"{path}: {before!r} -> {after!r}"]


def _explain(error: ValidationError) -> str:
    """Return Pydantic's first complaint in our words, with the nearest valid key."""
    found = error.errors()[0]
    location = [str(p) for p in found["loc"]]
    dotted = ".".join(location)
    if found["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1])
        return f"unknown option {dotted!r}.{near(location[-1], valid)} Valid here: {', '.join(valid)}"
    if found["type"] == "missing":
        return f"the option {dotted!r} is missing"
    message = found["msg"][0].lower() + found["msg"][1:]
    shown = repr(found["input"])
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    return f"{dotted}: {message}, found {shown} ({type(found['input']).__name__})"


def _valid_keys(location: Sequence[str]) -> list[str]:
    """Return the keys of the schema's block at `location`."""
    model: type[BaseModel] = Options
    for name in location:
        field = model.model_fields.get(name)
        if field is None:
            continue  # an index into a list
        inner = _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_in, typing.get_args(annotation)) if m is not None), None)
