"""Registries: one a kind of component, each with one interface, and the check of a component's arguments.

| registry    | a component is                                                                  |
|-------------|---------------------------------------------------------------------------------|
| `ARCHS`     | a restorer: `forward(lq, center=None) -> restored` (`archs/base.py`)             |
| `MODULES`   | a part: disparity, deblur, reblur or preservation module (`modules/`)            |
| `LOSSES`    | `forward(prediction, batch) -> scalar` (`losses/`)                               |
| `DATASETS`  | `__getitem__ -> sample` (`data/datasets/`, `simulation/dataset.py`)              |
| `METRICS`   | `metric(restored, gt) -> float` (`evaluation/metrics`)                           |
| `MAP_METRICS` | `map_metric(map, truth, valid) -> float` (`evaluation/map_metrics.py`)         |
| `PROTOCOLS` | what fixes bit depth, size handling, clamp and metrics (`evaluation/protocols`)  |

They are mmengine registries of scope `k3dn`. A component registers itself where it is defined; the
files of the packages named here load when a registry is first asked, then the entry points of group
`k3dn_plugin.components`. So adding a component is adding one file, here or in a package of one's own.

A recipe with a misspelt or mistyped argument stops in the first second, not after the data has
loaded: names come from the constructor's signature, types from its annotations (through pydantic, strictly: no
"48" for 48). Nested parts (a mapping with `type`) are checked the same way, as `MODULES`.
"""
import difflib
import fnmatch
import functools
import inspect
import json
import pkgutil
import threading
import typing
import warnings
from collections.abc import Mapping
from importlib import import_module, metadata

from mmengine.registry import Registry

from k3dn_plugin.errors import OptionError, RegistryError


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


ENTRY_POINT_GROUP = "k3dn_plugin.components"


class ComponentRegistry(Registry):
    """An mmengine `Registry` that loads its files lazily and explains a failed look-up.

    Args:
        name: what one component is called in messages ("restorer", "module", ...).
        packages: packages whose modules register components here when imported.
    """

    def __init__(self, name, *, packages):
        super().__init__(name, scope="k3dn")
        self.packages = tuple(packages)
        self.listeners = []
        self._loaded = False
        self._load_lock = threading.RLock()

    def load(self):
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

    def get(self, key):
        """The class registered as `key`.

        Raises:
            RegistryError: nothing has that name; the message lists near names and where it looked.
        """
        self.load()
        name = key[len("k3dn."):] if str(key).startswith("k3dn.") else key
        if name in self._module_dict:
            return self._module_dict[name]
        raise RegistryError(self._unknown(name))

    def names(self, pattern="*"):
        """Sorted names that match a shell-style `pattern` (`"k3dn*"`), upper and lower case alike."""
        self.load()
        return sorted(n for n in self._module_dict if fnmatch.fnmatch(n.lower(), pattern.lower()))

    def build(self, spec, **given):
        """Build the component that `spec`, a mapping with `type`, describes.

        `given` are constructor arguments that the caller supplies (a host network's widths, say); the
        others come from `spec` and are checked against the constructor's signature first.

        Raises:
            OptionError: `spec` has no `type`, an unknown argument or one of the wrong type.
            RegistryError: the `type` is not registered.
        """
        cls, arguments = check_arguments(self, spec, given=given)
        return cls(**arguments, **given)

    def _register_module(self, module, module_name=None, force=False):
        super()._register_module(module, module_name, force)
        names = [module_name] if isinstance(module_name, str) else module_name
        for name in names or [module.__name__]:
            for listener in self.listeners:
                listener(self, name, module)

    def _unknown(self, name):
        known = sorted(self._module_dict)
        lower = {n.lower(): n for n in known}
        near = [lower[m] for m in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else (
            f"Registered: {', '.join(known) or 'nothing'}.")
        broken = "".join(f"\n  entry point {k}: {v}" for k, v in _broken_entry_points.items())
        return (f"no {self.name} is registered as {name!r}. {hint}\n"
                f"Looked in: {', '.join(self.packages)}; entry points of group "
                f"{ENTRY_POINT_GROUP!r}; `custom_imports` of the option file.{broken}")


_broken_entry_points = {}
_entry_points_loaded = False


def import_all(package_name):
    """Import a package and every module below it (private ones, named `_x`, excepted)."""
    package = import_module(package_name)
    for info in pkgutil.walk_packages(getattr(package, "__path__", ()), prefix=package_name + "."):
        if not info.name.rsplit(".", 1)[-1].startswith("_"):
            import_module(info.name)


def load_entry_points():
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


ARCHS = ComponentRegistry("restorer", packages=["k3dn_plugin.archs"])
MODULES = ComponentRegistry("module", packages=["k3dn_plugin.modules"])
LOSSES = ComponentRegistry("loss", packages=["k3dn_plugin.losses"])
DATASETS = ComponentRegistry("dataset", packages=["k3dn_plugin.data.datasets", "k3dn_plugin.simulation.dataset"])
METRICS = ComponentRegistry("metric", packages=["k3dn_plugin.evaluation.metrics"])
MAP_METRICS = ComponentRegistry("map metric", packages=["k3dn_plugin.evaluation.map_metrics"])
PROTOCOLS = ComponentRegistry("protocol", packages=["k3dn_plugin.evaluation.protocols"])

REGISTRIES = {"ARCHS": ARCHS, "MODULES": MODULES, "LOSSES": LOSSES, "DATASETS": DATASETS,
              "METRICS": METRICS, "MAP_METRICS": MAP_METRICS, "PROTOCOLS": PROTOCOLS}


def list_restorers(pattern="*"):
    """Names of the registered restorers that match `pattern`, e.g. `list_restorers("k3dn*")`."""
    return ARCHS.names(pattern)
