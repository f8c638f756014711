"""Pages of the documentation that the code writes: option keys, commands and components, so that none goes stale."""
import inspect
import os
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from k3dn_plugin.commands._console import GROUPS, build_parser, commands
from k3dn_plugin.option_schema import OptionKeys
from k3dn_plugin.registry import REGISTRIES, ComponentRegistry, describe

KINDS = {"ARCHS": "Restorers", "MODULES": "Modules", "LOSSES": "Losses", "SCHEDULES": "Schedules",
         "DATASETS": "Data sets", "PREPARERS": "Layouts of data sets", "VIEW_READERS": "Readers of camera files",
         "PSF_FAMILIES": "PSF families", "METRICS": "Metrics", "MAP_METRICS": "Map metrics",
         "DIAGNOSTICS": "Diagnostics", "PROTOCOLS": "Protocols", "FORMATS": "Published checkpoint formats"}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
NO_WORDS = "(not described yet)"


def options_page() -> str:
    """Return every key of an option file in Markdown: type, default and description, from the schema."""
    lines = ["# Options", "",
             "Every key that an option file may have, generated from the schema that checks it "
             "(`k3dn_plugin.option_schema`). A key that is not here, and is not an argument of a "
             "[component](components.md), stops a run at once, and the message names the nearest valid one. "
             "`_base_: [file, ...]` inherits other option files, `_delete_: true` in a mapping drops what it would "
             "inherit, and `--set a.b=c` on the command line comes last.", ""]
    for path, model in _blocks(OptionKeys):
        lines += [f"## `{path}`" if path else "## The file", "", _sentence(model.__doc__), "",
                  *_table(("key", "type", "default", "what it is"),
                          (_option_row(name, info) for name, info in model.model_fields.items())), ""]
    return "\n".join(lines)


def commands_page() -> str:
    """Return the help of every command in Markdown, in the groups of `k3dn --help`, from the parsers."""
    wide = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # argparse folds its help to the terminal's width
    try:
        parser = build_parser()
        children = next(action for action in parser._actions if action.dest == "command").choices or {}
        helps = {name: child.format_help() for name, child in dict(children).items()}
    finally:
        if wide is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = wide
    lines = ["# Commands", "",
             "What `k3dn COMMAND --help` prints. In a checkout that is not installed, `python -m k3dn_plugin COMMAND` "
             "takes the same arguments.", ""]
    for group, title in GROUPS.items():
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        for name, module in commands().items():
            if group == module.GROUP:
                lines += [f"### k3dn {name}", "", "```text", helps[name].rstrip(), "```", ""]
    return "\n".join(lines)


def components_page() -> str:
    """Return every registered component in Markdown: its name, what it is, and its arguments, a table a kind."""
    lines = ["# Components", "",
             "Everything that can be named in an option file or on the command line, generated from the registries. "
             "The arguments are the keys that stand beside `type`. [Contributing](../contributing.md) shows how each "
             "kind is written.", ""]
    for key, registry in REGISTRIES.items():
        lines += [f"## {KINDS.get(key, key)}", "", f"`{key}`, looked for in "
                  f"{', '.join(f'`{package}`' for package in registry.packages)}.", "",
                  *_table(("name", "what it is", "arguments"),
                          (_component_row(registry, name) for name in _own(registry))), ""]
    return "\n".join(lines)


def _blocks(model: type[BaseModel], path: str = "") -> Iterable[tuple[str, type[BaseModel]]]:
    """A model and all models inside it, with the path of each in the option file."""
    yield path, model
    for name, info in model.model_fields.items():
        for inner in _models(info.annotation):
            listed = "[i]" if "list" in str(info.annotation) else ""
            yield from _blocks(inner, f"{path}.{name}{listed}".lstrip("."))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _option_row(name: str, info: FieldInfo) -> tuple[str, ...]:
    bounds = [f"{words} {getattr(rule, sign)}" for rule in info.metadata for sign, words in BOUNDS.items()
              if getattr(rule, sign, None) is not None]
    kind = "mapping" if _models(info.annotation) and "list" not in str(info.annotation) else _type(info.annotation)
    default = "required" if info.is_required() else _default(info.default)
    return f"`{name}`", ", ".join([kind, *bounds]), default, info.description or NO_WORDS


def _type(annotation: Any) -> str:
    """A type in the words of someone who writes YAML."""
    if typing.get_origin(annotation) is list:
        return f"list of {_type(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is dict:
        return "mapping"
    if _models(annotation) and not typing.get_args(annotation):
        return "mapping"
    if typing.get_args(annotation) and typing.get_origin(annotation) is not typing.Literal:
        parts = [_type(part) for part in typing.get_args(annotation) if part is not type(None)]
        return " or ".join(parts + ["null"] * (type(None) in typing.get_args(annotation)))
    return describe(annotation)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its keys' defaults"
    named = {None: "null", True: "true", False: "false"}
    return f"`{named[value] if value is None or isinstance(value, bool) else value}`"


def _own(registry: ComponentRegistry) -> list[str]:
    """Names of this package's components; what an outside package registers has its own documentation."""
    return [name for name in registry.names() if _module(registry.get(name)).startswith("k3dn_plugin.")]


def _module(component: Any) -> str:
    return getattr(component, "__module__", type(component).__module__)


def _component_row(registry: ComponentRegistry, name: str) -> tuple[str, ...]:
    component = registry.get(name)
    words = getattr(component, "title", None) if isinstance(getattr(component, "title", None), str) else None
    return f"`{name}`", _sentence(words or inspect.getdoc(component)), _arguments(component)


def _arguments(component: Any) -> str:
    """A component's arguments with their defaults, or that it takes none."""
    if not callable(component):
        return "-"
    shown = []
    for argument in inspect.signature(component).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        default = "" if argument.default is argument.empty else f"={argument.default!r}"
        shown.append(f"`{argument.name}{default}`" if len(default) < 80 else f"`{argument.name}=...`")
    return ", ".join(shown) or "-"


def _sentence(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or NO_WORDS).strip().split("\n\n")[0].split())


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns),
            *("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows)]
