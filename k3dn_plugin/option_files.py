"""Reading option files: plain YAML with `_base_` inheritance, merge keys and 1e-4 as a number.

Merging is by key: a later file's mapping is merged into an earlier one's, anything else replaces it. A
mapping that names another `type` replaces the earlier one whole (its arguments belong to another
component), and so does one that says `_delete_: true`.
"""
import copy
import datetime
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import shared_file, shared_names, user_path
from k3dn_plugin.registry import near

LARGEST_FILE = 4 * 2**20   # bytes
MOST_VALUES = 100_000      # of a file, aliases counted as often as they are used


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses duplicate keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not when it is constructed: by then merge keys have put in what they merge, which the
        # mapping's own keys may replace.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise OptionError(f"{key.start_mark.name}, line {key.start_mark.line + 1}: "
                                  f"the key {key.value!r} stands twice in one mapping; remove one")
            seen.add((key.tag, key.value))
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789"))


def find_option_file(path: str | Path, folder: Path = Path()) -> Path:
    """Return the file that `path` means: itself, below `folder` where relative, or the shipped recipe of that name.

    A file of one's own comes first. What is found nowhere is returned as it is; reading it explains.
    """
    text = str(path)
    try:
        given = folder / user_path(path)
    except DataError as error:
        raise OptionError(f"option file {error}") from None
    if os.path.lexists(given) and not given.is_dir() or Path(text).name != text:
        return given
    return shared_file("options", text if text.endswith((".yml", ".yaml")) else f"{text}.yml") or given


def read_inherited(path: Path, _below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the mapping of an option file with its `_base_` files merged in, base first, to any depth.

    A base is a path seen from the file that names it, or the name of a shipped recipe.

    Raises:
        OptionError: a file cannot be read, or inherits from itself.
    """
    path = Path(path)
    own = read_yaml(path)
    here = path.resolve()
    if here in _below:
        raise OptionError(f"{path}: `_base_` goes round in a circle: "
                          + " -> ".join(str(p) for p in (*_below[_below.index(here):], here)))
    bases = own.pop("_base_", None)
    bases = [] if bases is None else bases if isinstance(bases, list) else [bases]
    merged: dict[str, Any] = {}
    for base in bases:
        if not isinstance(base, str) or not base:
            raise OptionError(f"{path}: _base_: expected an option file or a list of them, found {base!r}")
        merged = merge(merged, read_inherited(find_option_file(base, path.parent), (*_below, here)))
    return merge(merged, own)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the YAML mapping in a file.

    Raises:
        OptionError: names the file, and the line or key.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OptionError(f"{path}: is not a file; name an option file, e.g. {path / 'recipe.yml'}")
        if path.is_file() and path.stat().st_size > LARGEST_FILE:
            raise OptionError(f"{path}: has {path.stat().st_size:,} bytes; an option file is a short text")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionError(_not_found(path)) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise OptionError(f"{path}: cannot be read as a text file ({error})") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise OptionError(f"{path}: expected a mapping of options, found {type(data).__name__}")
    return data


def _not_found(path: Path) -> str:
    shipped = [Path(name).stem for name in shared_names("options", ".yml")]
    if path.name == str(path) and not path.suffix:
        return (f"{path}: no such option file, and no recipe of that name is shipped.{near(path.name, shipped)} "
                f"Shipped: {', '.join(shipped)}")
    folder = path.parent if path.parent.is_dir() else Path(".")
    names = sorted(p.name for p in folder.glob("*.yml"))
    return (f"{path}: no such option file.{near(path.name, names)} In {folder}: {', '.join(names) or 'no .yml file'}. "
            f"Shipped recipes are found by name: {', '.join(shipped[:3])}, ...")


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain data of a YAML text: mappings with text keys, lists, text, numbers, booleans and nulls.

    Raises:
        OptionError: begins with `where`; not valid YAML, or it holds something else.
    """
    try:
        loader = _Loader(text)
        loader.name = where
        data = loader.get_single_data()
    except OptionError:
        raise
    except RecursionError:
        raise OptionError(f"{where}: not valid YAML: nested too deeply") from None
    except Exception as error:  # besides YAMLError: what conversions of a tagged value raise
        raise OptionError(f"{where}: not valid YAML: {_explained(error)}") from None
    _check_plain(data, where, (), [0])
    return data


def _explained(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{type(error).__name__}: {error}"
    line = f" ({mark.buffer.splitlines()[mark.line].strip()[:80]})" if mark.buffer and mark.line < len(
        mark.buffer.splitlines()) else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', error)}{line}"


def _check_plain(value: Any, where: str, path: tuple[str, ...], count: list[int], above: tuple[int, ...] = ()) -> None:
    count[0] += 1
    here = f"{where}: {'.'.join(path) or 'the value'}"
    if count[0] > MOST_VALUES:
        raise OptionError(f"{where}: holds more than {MOST_VALUES:,} values, aliases counted as often as they are used")
    if id(value) in above or len(above) > 100:
        raise OptionError(f"{here} holds itself, by an alias, or is nested too deeply")
    if isinstance(value, str):
        try:
            os.fsencode(value)
        except UnicodeEncodeError:  # half of a surrogate pair, which no file, name or log can hold
            raise OptionError(f"{here}: {ascii(value)[:80]} is no text in Unicode; correct its escapes") from None
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise OptionError(f"{here}: expected keys that are text, found {key!r} ({type(key).__name__}); "
                                  "write it in quotes")
            _check_plain(inner, where, (*path, key), count, (*above, id(value)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(inner, where, (*path, str(number)), count, (*above, id(value)))
    elif isinstance(value, datetime.date):
        raise OptionError(f"{here} is a date in YAML, not text; write it in quotes: '\"{value}\"' on a command line, "
                          f"\"{value}\" in a file")
    elif isinstance(value, float) and math.isnan(value):
        raise OptionError(f"{here} is not a number (NaN)")
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise OptionError(f"{here}: expected text, a number, a list or a mapping, found {type(value).__name__}")


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `change` merged into a copy of `base`, by key (module docstring)."""
    change = dict(change)
    replaces = change.pop("_delete_", False) or (
        "type" in change and "type" in base and change["type"] != base["type"])
    merged = {} if replaces else copy.deepcopy(dict(base))
    for key, value in change.items():
        before = merged.get(key)
        merged[key] = merged_value(before if isinstance(before, Mapping) else {}, value)
    return merged


def merged_value(before: Mapping[str, Any], value: Any) -> Any:
    """Return a copy of `value`, merged into the mapping `before` where it is one, too."""
    if isinstance(value, Mapping):
        return merge(before, value)
    if isinstance(value, list):
        return [merged_value({}, entry) for entry in value]
    return copy.deepcopy(value)
