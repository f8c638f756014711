"""Opening a store whatever its layout."""
from pathlib import Path

from k3dn_plugin.data.basicsr_store import BasicSRStore, is_basicsr
from k3dn_plugin.data.lmdb_store import LmdbStore


def open_store(path) -> LmdbStore | BasicSRStore:
    """The store at `path`: ours, or BasicSR's layout (recognised by its meta_info.txt).

    Raises:
        DataError: there is none, it is unfinished, damaged, or of neither layout.
    """
    return BasicSRStore(path) if is_basicsr(Path(path)) else LmdbStore(path)
