"""Stores: one LMDB environment a split, whole frames in their own bit depth, a manifest inside."""
import os

from k3dn_plugin.data.store.basicsr import BasicSRStore, is_basicsr
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.data.store.writer import StoreWriter
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import user_path

__all__ = ["BasicSRStore", "LmdbStore", "StoreWriter", "open_store"]


def open_store(path: str | os.PathLike[str]) -> LmdbStore | BasicSRStore:
    """Open the store at `path`: ours, or BasicSR's layout (recognized by its meta_info.txt).

    Raises:
        DataError: there is none, it is unfinished, damaged, or of neither layout.
    """
    path = user_path(path)
    try:
        return BasicSRStore(path) if is_basicsr(path) else LmdbStore(path)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or error}). Check the path and its "
                        "permissions") from None
