"""How published folder layouts become stores, one file a layout.

A preparer finds the scenes of a layout (`Preparer.find`) and says what holds for all of them; `prepare`
reads, checks and stores them. A new layout is one file here: a `Preparer` with `@PREPARERS.register_module()`.
"""
from k3dn_plugin.data.preparation.base import Preparer, get_preparer
from k3dn_plugin.data.preparation.build import prepare
from k3dn_plugin.registry import PREPARERS

__all__ = ["PREPARERS", "Preparer", "get_preparer", "prepare"]
