"""Checks a component's arguments against its constructor before anything is built.

A recipe with a misspelt or mistyped argument should stop in the first second, not after the data has
loaded. Names come from the signature, types from its annotations (through pydantic, strictly: no
"48" for 48). Nested parts (a mapping with `type`) are checked the same way, as `MODULES`.
"""
import difflib
import functools
import inspect
import json
import typing
from collections.abc import Mapping

from k3dn_plugin.errors import OptionError


def near(name, choices):
    """` Did you mean 'x'?` for the closest of `choices`, or the empty string."""
    found = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def check_arguments(registry, spec, *, given=(), path="", partial=False):
    """`(class, arguments)` for a component's `spec`, checked.

    Args:
        registry: where `spec["type"]` is registered.
        spec: a mapping with `type` and constructor arguments.
        given: names of the arguments that the caller will add.
        path: where the mapping stands in the option file, for messages (`network_g`).
        partial: arguments may be missing, since a host network will supply them.

    Raises:
        OptionError: not a mapping with `type`; an argument that the constructor does not have, is
            missing or has the wrong type.
        RegistryError: `type` is not registered.
    """
    where = path or registry.name
    if not isinstance(spec, Mapping) or not isinstance(spec.get("type"), str):
        raise OptionError(f"{where}: expected a mapping with `type`, a registered {registry.name}; "
                          f"found {spec!r}")
    cls = registry.get(spec["type"])
    arguments = {k: v for k, v in spec.items() if k != "type"}
    signature = inspect.signature(cls)
    hints = _hints(cls)
    for name, value in arguments.items():
        if name not in signature.parameters or name in given:
            reason = ("is set by the network that holds this part" if name in given
                      else "is not an argument of " + spec["type"])
            names = [n for n in signature.parameters if n not in given]
            raise OptionError(f"{where}.{name}: {reason}.{near(name, names)} "
                              f"Arguments: {', '.join(names) or 'none'}")
        if isinstance(value, Mapping) and "type" in value:
            _check_part(value, f"{where}.{name}")
        elif name in hints:
            arguments[name] = conform(value, hints[name], f"{where}.{name}")
    missing = [n for n, p in signature.parameters.items() if p.default is p.empty
               and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
               and n not in arguments and n not in given]
    if missing and not partial:
        raise OptionError(f"{where}: {spec['type']} needs the argument"
                          f"{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return cls, arguments


def _check_part(spec, where):
    """Check a nested part: a module, or a restorer that another one wraps."""
    from k3dn_plugin.registry import ARCHS, MODULES
    is_restorer = spec["type"] in ARCHS.names() and spec["type"] not in MODULES.names()
    check_arguments(ARCHS if is_restorer else MODULES, spec, path=where, partial=True)


def conform(value, annotation, where):
    """`value` as `annotation` wants it (a list becomes a tuple, an int a float), else `OptionError`."""
    from pydantic import ValidationError
    try:
        adapter = _adapter(annotation)
        text = json.dumps(value)
    except Exception:
        # Not a type that a YAML file can hold (a tensor, a module): the constructor checks it.
        return value
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        found = error.errors()[0]
        inside = "".join(f"[{p}]" for p in found["loc"] if isinstance(p, int))
        raise OptionError(f"{where}{inside}: expected {describe(annotation)}, found {value!r} "
                          f"({type(value).__name__})") from None


def describe(annotation):
    """A type annotation as a reader would say it: `int`, `tuple[int, int] or None`."""
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(annotation))
    args = typing.get_args(annotation)
    if args and type(None) in args:
        return " or ".join(describe(a) for a in args if a is not type(None)) + " or null"
    return getattr(annotation, "__name__", str(annotation)) if not args else str(annotation)


@functools.lru_cache(maxsize=512)
def _adapter(annotation):
    from pydantic import TypeAdapter
    return TypeAdapter(annotation)


def _hints(cls):
    target = cls.__init__ if inspect.isclass(cls) else cls
    try:
        hints = typing.get_type_hints(target)
    except Exception:
        hints = {}
    hints.pop("return", None)
    return hints
