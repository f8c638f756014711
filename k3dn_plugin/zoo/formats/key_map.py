"""Official and own names of the same tensors, as a table that reads both ways."""
from k3dn_plugin.errors import CheckpointError


class KeyMap:
    """Renames state-dict keys by their longest known prefix.

    Args:
        pairs: official prefix -> ours; a prefix is a whole key or ends before a dot.

    Raises:
        CheckpointError: two official prefixes claim one of ours.
    """

    def __init__(self, pairs: dict[str, str]):
        self._ours = dict(pairs)
        self._official = {ours: official for official, ours in pairs.items()}
        if len(self._official) < len(self._ours):
            raise CheckpointError("a key map must be one to one")

    def ours(self, key: str) -> str:
        """Return our key for an official one; unknown keys stay as they are, for a strict load to complain of."""
        return _replace(key, self._ours)

    def official(self, key: str) -> str:
        """Return the official key for one of ours."""
        return _replace(key, self._official)


def _replace(key: str, table: dict[str, str]) -> str:
    prefix, rest = key, ""
    while prefix not in table:
        prefix, dot, last = prefix.rpartition(".")
        if not dot:
            return key
        rest = f".{last}{rest}"
    return table[prefix] + rest
