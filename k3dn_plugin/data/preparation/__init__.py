"""How published folder layouts become stores, one file a layout.

A preparer finds the scenes of a layout (`Preparer.find`) and says what holds for all of them; `prepare`
reads, checks and stores them. A new layout is one file here: a `Preparer` with `@register_preparer`.
"""
from k3dn_plugin.data.preparation.base import PREPARERS, Preparer, get_preparer, register_preparer
from k3dn_plugin.data.preparation.build import prepare

__all__ = ["PREPARERS", "Preparer", "get_preparer", "prepare", "register_preparer"]
