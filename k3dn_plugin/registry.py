"""The six registries: one a kind of component, each with one interface.

| registry    | a component is                                                                  |
|-------------|---------------------------------------------------------------------------------|
| `ARCHS`     | a restorer: `forward(lq, center=None) -> restored` (`archs/base.py`)             |
| `MODULES`   | a part: disparity, deblur, reblur or preservation module (`modules/`)            |
| `LOSSES`    | `forward(prediction, batch) -> scalar` (`losses/`)                               |
| `DATASETS`  | `__getitem__ -> sample` (`data/`)                                                |
| `METRICS`   | `metric(restored, gt) -> float` (`evaluation/metrics`)                           |
| `PROTOCOLS` | what fixes bit depth, size handling, clamp and metrics (`evaluation/protocols`)  |

They are mmengine registries of scope `k3dn`. A component registers itself where it is defined; the
files of the packages named here load when a registry is first asked, then the entry points of group
`k3dn_plugin.components`. So adding a component is adding one file, here or in a package of one's own.
"""
import difflib
import fnmatch
import pkgutil
import threading
import warnings
from importlib import import_module, metadata

from mmengine.registry import Registry

from k3dn_plugin.errors import RegistryError
from k3dn_plugin.signatures import check_arguments

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
DATASETS = ComponentRegistry("dataset", packages=["k3dn_plugin.data"])
METRICS = ComponentRegistry("metric", packages=["k3dn_plugin.evaluation"])
PROTOCOLS = ComponentRegistry("protocol", packages=["k3dn_plugin.evaluation"])

REGISTRIES = {"ARCHS": ARCHS, "MODULES": MODULES, "LOSSES": LOSSES, "DATASETS": DATASETS,
              "METRICS": METRICS, "PROTOCOLS": PROTOCOLS}


def list_restorers(pattern="*"):
    """Names of the registered restorers that match `pattern`, e.g. `list_restorers("k3dn*")`."""
    return ARCHS.names(pattern)
