"""Registries: one a kind of component, each with one interface, and the check of a component's arguments.

| registry       | a component is                                                                            |
|----------------|-------------------------------------------------------------------------------------------|
| `ARCHS`        | a restorer: `forward(lq, center=None) -> restored` (`archs/base.py`)                      |
| `MODULES`      | a part: disparity, deblur, reblur or preservation module, blur map (`modules/`)           |
| `LOSSES`       | `forward(prediction, batch) -> scalar` (`losses/`)                                        |
| `SCHEDULES`    | `schedule(**arguments) -> rate(lr, iteration)` (`training/schedules.py`)                  |
| `DATASETS`     | `__getitem__ -> sample` (`data/datasets/`, `simulation/dataset.py`)                       |
| `PREPARERS`    | the layout of a data set: `find(source) -> splits of scenes` (`data/preparation/`)        |
| `VIEW_READERS` | a kind of camera file: `read(source, settings) -> views` (`data/raw/`)                    |
| `PSF_FAMILIES` | `family(x, y, radius, parameters) -> density` (`simulation/psf/`)                         |
| `METRICS`      | `metric(restored, gt) -> float` (`evaluation/metrics/`)                                   |
| `MAP_METRICS`  | `map_metric(map, truth, valid) -> float` (`evaluation/map_metrics.py`)                    |
| `DIAGNOSTICS`  | scores by blur, and scores that need no truth (`evaluation/diagnostics.py`)               |
| `PROTOCOLS`    | what fixes bit depth, size handling, light, clamp and metrics (`evaluation/protocols/`)   |
| `FORMATS`      | a published checkpoint: keys, settings, key map both ways (`zoo/formats/`)                |

A component registers itself where it is defined; the files of the packages named here load when a registry is first
asked, then the entry points of group `k3dn_plugin.components`. So adding a component is adding one file, here or in a
package of one's own. `bridges/` mirrors the registries into BasicSR's and mmengine's.

A recipe with a misspelt or mistyped argument stops in the first second, not after the data has loaded: names come from
the constructor's signature, types from its annotations (through pydantic, strictly: no "48" for 48). Nested parts (a
mapping with `type`) are checked the same way.
"""
# pyright: reportUnnecessaryIsInstance=false
# Values of option files are checked here at run time, whatever the signatures promise.
import difflib
import fnmatch
import functools
import inspect
import json
import os
import pkgutil
import threading
import typing
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module, metadata
from typing import Any, cast

from k3dn_plugin.errors import OptionError, RegistryError

ENTRY_POINT_GROUP = "k3dn_plugin.components"


class ComponentRegistry:
    """Components of one kind by name: loads their files lazily and explains a failed look-up.

    Args:
        name: what one component is called in messages ("restorer", "module", ...).
        packages: packages, or modules, that register components here when imported.
        named_by: the class attribute that holds a component's name, or a tuple of its names; else the name is that
            of the class, or given where it is registered.
    """

    def __init__(self, name: str, *, packages: Iterable[str], named_by: str | None = None):
        self.name = name
        self.packages = tuple(packages)
        self.listeners: list[Callable[[ComponentRegistry, str, Any], None]] = []
        self._named_by = named_by
        self._components: dict[str, Any] = {}
        self._loaded = False
        self._load_lock = threading.RLock()

    def register_module(self, name: str | Iterable[str] | None = None, *, module: Any = None) -> Any:
        """Register a class or function under its name, or under the given one or ones; also as a decorator.

        The same component may come again (its file was reloaded) and then takes the older one's place.

        Raises:
            RegistryError: another component has that name.
        """
        if module is None:
            def decorator(component: Any) -> Any:
                return self.register_module(name, module=component)
            return decorator
        given = getattr(module, self._named_by) if name is None and self._named_by else name
        for each in [given or module.__name__] if given is None or isinstance(given, str) else given:
            there = self._components.get(each, module)
            if _origin(there) != _origin(module):
                raise RegistryError(f"a {self.name} is called {each!r} already: {'.'.join(_origin(there))}. Give "
                                    f"{'.'.join(_origin(module))} another name")
            self._components[each] = module
            for listener in self.listeners:
                listener(self, each, module)
        return module

    def unregister(self, name: str) -> None:
        """Forget the component called `name`, if there is one."""
        self._components.pop(name, None)

    def load(self) -> None:
        """Import every file of `packages`, then the entry points; a second call does nothing."""
        with self._load_lock:
            if self._loaded:
                return
            # Set first: the imports below look components up in this very registry.
            self._loaded = True
            try:
                for package in self.packages:
                    import_all(package)
            except BaseException:
                self._loaded = False
                raise
        load_entry_points()

    def get(self, key: str) -> Any:
        """Return the class or function registered as `key`.

        Raises:
            RegistryError: nothing has that name; the message lists near names and where it looked.
        """
        self.load()
        name = key[len("k3dn."):] if str(key).startswith("k3dn.") else key
        if isinstance(name, str) and name in self._components:
            return self._components[name]
        raise RegistryError(self._unknown(name))

    def names(self, pattern: str = "*") -> list[str]:
        """Return the sorted names that match a shell-style `pattern` (`"k3dn*"`), upper and lower case alike."""
        self.load()
        return sorted(n for n in self._components if fnmatch.fnmatch(n.lower(), pattern.lower()))

    def __contains__(self, name: object) -> bool:
        self.load()
        return isinstance(name, str) and name in self._components

    def build(self, spec: Mapping[str, Any], **given: Any) -> Any:
        """Build the component that `spec`, a mapping with `type`, describes.

        `given` are constructor arguments that the caller supplies (a host network's widths, say); the
        others come from `spec` and are checked against the constructor's signature first.

        Raises:
            OptionError: `spec` has no `type`, an unknown argument or one of the wrong type.
            RegistryError: the `type` is not registered.
        """
        cls, arguments = check_arguments(self, spec, given=given)
        return cls(**arguments, **given)

    def _unknown(self, name: object) -> str:
        known = sorted(self._components)
        close = closest(name, known)
        hint = f"Did you mean {' or '.join(repr(n) for n in close)}?" if close else (
            f"Registered: {', '.join(known) or 'nothing'}.")
        broken = "".join(f"\n  entry point {k}: {v}" for k, v in broken_entry_points().items())
        return (f"no {self.name} is registered as {name!r}. {hint}\n"
                f"Looked in: {', '.join(self.packages)}; entry points of group "
                f"{ENTRY_POINT_GROUP!r}; `custom_imports` of the option file.{broken}")


_MANY = 2000
_broken_entry_points: dict[str, str] = {}
_entry_points_loaded = False


def import_all(package_name: str) -> None:
    """Import a package and every module below it (private ones, named `_x`, excepted)."""
    package = import_module(package_name)
    for info in pkgutil.walk_packages(getattr(package, "__path__", ()), prefix=package_name + "."):
        if not info.name.rsplit(".", 1)[-1].startswith("_"):
            import_module(info.name)


def load_entry_points() -> None:
    """Import what other installed packages declare in group `k3dn_plugin.components`, once.

    A package that fails to import is reported by a warning, and again in the message of any failed
    look-up; it does not stop those that work.
    """
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:
            _broken_entry_points[entry.name] = f"{type(error).__name__}: {error}"
            warnings.warn(f"entry point {entry.name} = {entry.value} of group {ENTRY_POINT_GROUP} "
                          f"failed to import: {error}", stacklevel=2)


def broken_entry_points() -> dict[str, str]:
    """Return the entry points that failed to import, with their errors."""
    return dict(_broken_entry_points)


def near(name: object, choices: Iterable[object]) -> str:
    """Return ` Did you mean 'x'?` for the closest of `choices`, or the empty string."""
    found = closest(name, choices, most=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def nearest(name: object, choices: Iterable[object]) -> str:
    """Return `Nearest: 'a', 'b'.`, what a message about a missing key ends with; some choices where none is near."""
    choices = list(choices)
    found = closest(name, choices, cutoff=0.3) or [str(c) for c in choices[:3]]
    return f"Nearest: {', '.join(map(repr, found))}." if found else "It holds nothing."


def closest(name: object, choices: Iterable[object], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """Return those of `choices` that are like `name`, upper and lower case alike, the closest first.

    Args:
        most: how many at most.
        cutoff: likeness that is needed, from 0 to 1.
    """
    lower = {str(c).lower(): str(c) for c in choices}
    text, names = str(name).lower(), list(lower)
    if len(names) > _MANY:
        # difflib takes seconds on long lists of long names; those that share a beginning come first anyway.
        names = sorted(names, key=lambda n: -len(os.path.commonprefix((n, text))))[:_MANY]
    return [lower[n] for n in difflib.get_close_matches(text, names, n=most, cutoff=cutoff)]


def check_arguments(registry: ComponentRegistry, spec: Mapping[str, Any], *, given: Collection[str] = (),
                    path: str = "", partial: bool = False) -> tuple[Any, dict[str, Any]]:
    """Check a component's `spec` and return `(class, arguments)`.

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
            _check_part(cast("Mapping[str, Any]", value), f"{where}.{name}")
        elif name in hints:
            arguments[name] = conform(value, hints[name], f"{where}.{name}")
    missing = [n for n, p in signature.parameters.items() if p.default is p.empty
               and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
               and n not in arguments and n not in given]
    if missing and not partial:
        raise OptionError(f"{where}: {spec['type']} needs the argument"
                          f"{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return cls, arguments


def _check_part(spec: Mapping[str, Any], where: str) -> None:
    """Check a nested part: a module, or a restorer that another one wraps."""
    is_restorer = spec["type"] in ARCHS and spec["type"] not in MODULES
    check_arguments(ARCHS if is_restorer else MODULES, spec, path=where, partial=True)


def conform(value: Any, annotation: Any, where: str) -> Any:
    """Return `value` as `annotation` wants it (a list becomes a tuple, an int a float), else `OptionError`."""
    # Imported here, as in _adapter: pydantic takes time, and most look-ups need no check.
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


def describe(annotation: Any) -> str:
    """Return a type annotation in words: `int`, `tuple[int, int] or None`."""
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(annotation))
    args = typing.get_args(annotation)
    if args and type(None) in args:
        return " or ".join(describe(a) for a in args if a is not type(None)) + " or null"
    return getattr(annotation, "__name__", str(annotation)) if not args else str(annotation)


@functools.lru_cache(maxsize=512)
def _adapter(annotation: Any) -> Any:
    from pydantic import TypeAdapter  # see conform
    return TypeAdapter(annotation)


def _hints(cls: Any) -> dict[str, Any]:
    target = cls.__init__ if inspect.isclass(cls) else cls
    try:
        hints = typing.get_type_hints(target)
    except Exception:
        hints = {}
    hints.pop("return", None)
    return hints


def _origin(component: Any) -> tuple[str, str]:
    """Module and name of a component: what stays the same when its file is reloaded."""
    return (getattr(component, "__module__", type(component).__module__),
            getattr(component, "__qualname__", type(component).__qualname__))


ARCHS = ComponentRegistry("restorer", packages=["k3dn_plugin.archs"])
MODULES = ComponentRegistry("module", packages=["k3dn_plugin.modules"])
LOSSES = ComponentRegistry("loss", packages=["k3dn_plugin.losses"])
SCHEDULES = ComponentRegistry("schedule", packages=["k3dn_plugin.training.schedules"])
DATASETS = ComponentRegistry("dataset", packages=["k3dn_plugin.data.datasets", "k3dn_plugin.simulation.dataset"])
PREPARERS = ComponentRegistry("layout of a data set", packages=["k3dn_plugin.data.preparation"], named_by="name")
VIEW_READERS = ComponentRegistry("reader of camera files", packages=["k3dn_plugin.data.raw"], named_by="name")
PSF_FAMILIES = ComponentRegistry("PSF family", packages=["k3dn_plugin.simulation.psf"])
METRICS = ComponentRegistry("metric", packages=["k3dn_plugin.evaluation.metrics"])
MAP_METRICS = ComponentRegistry("map metric", packages=["k3dn_plugin.evaluation.map_metrics"])
DIAGNOSTICS = ComponentRegistry("diagnostic", packages=["k3dn_plugin.evaluation.diagnostics"])
PROTOCOLS = ComponentRegistry("protocol", packages=["k3dn_plugin.evaluation.protocols"])
FORMATS = ComponentRegistry("checkpoint format", packages=["k3dn_plugin.zoo.formats"], named_by="networks")

REGISTRIES = {"ARCHS": ARCHS, "MODULES": MODULES, "LOSSES": LOSSES, "SCHEDULES": SCHEDULES, "DATASETS": DATASETS,
              "PREPARERS": PREPARERS, "VIEW_READERS": VIEW_READERS, "PSF_FAMILIES": PSF_FAMILIES, "METRICS": METRICS,
              "MAP_METRICS": MAP_METRICS, "DIAGNOSTICS": DIAGNOSTICS, "PROTOCOLS": PROTOCOLS, "FORMATS": FORMATS}


def list_restorers(pattern: str = "*") -> list[str]:
    """Return the names of the registered restorers that match `pattern`, e.g. `list_restorers("k3dn*")`."""
    return ARCHS.names(pattern)
