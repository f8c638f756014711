"""k3dn_plugin: dual-pixel defocus deblurring with swappable parts.

Importing the package is cheap: components load when a registry is first asked for one.

    import k3dn_plugin as k3dn
    restorer = k3dn.load_restorer("experiments/k3dn_demo/models/best.safetensors")
    sharp = restorer.restore(left, right)    # NumPy (H, W, 3), uint8, uint16 or float; the same type back
"""
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    **dict.fromkeys(("ARCHS", "MODULES", "LOSSES", "DATASETS", "METRICS", "PROTOCOLS",
                     "list_restorers"), "k3dn_plugin.registry"),
    "K3DNError": "k3dn_plugin.errors",
    "load_options": "k3dn_plugin.options",
    **dict.fromkeys(("load_restorer", "from_pretrained", "LoadedRestorer"), "k3dn_plugin.zoo.load"),
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
