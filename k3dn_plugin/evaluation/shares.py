"""Scoring shared among processes: who they are, and the rows that any of them has left in the results' folder.

A process keeps its rows in a file of its own (`per_image.2of4.csv`) until all are done; then one file has them all.
Rows that killed processes left are found whatever their number was.
"""
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from k3dn_plugin.evaluation.results import ImageRow, RowFile

SHARES = "per_image.*of*.csv"


class Processes(Protocol):
    """The processes that share the work, as `training.distributed.ProcessGroup` is one."""

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Return how many there are."""
        ...

    @property
    def is_main(self) -> bool:
        """Return whether this one writes what all have found."""
        ...

    def from_main(self, function: Callable[[], Any]) -> Any:
        """Return on all processes what `function()` returns on the first."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks."""
        ...


def row_file(out_dir: str | os.PathLike, identity: dict, rank: int = 0, world_size: int = 1) -> RowFile:
    """Return the file in which a process keeps its rows."""
    share = "" if world_size == 1 else f".{rank + 1}of{world_size}"
    return RowFile(Path(out_dir) / f"per_image{share}.csv", identity)


def collected(out_dir: str | os.PathLike, identity: dict, *, resume: bool) -> tuple[dict[int, ImageRow], int]:
    """Gather the rows in a folder that belong to `identity` into its one file; move others aside.

    Args:
        resume: False forgets them.

    Returns:
        the rows by image, and how many had been changed since they were written.
    """
    file = row_file(out_dir, identity)
    shares = [RowFile(path, identity) for path in sorted(Path(out_dir).glob(SHARES))]
    rows: dict[int, ImageRow] = {}
    damaged = 0
    if resume:
        for one in (file, *shares):
            rows.update({row.index: row for row in one.rows()})
            damaged += one.damaged
    file.keep_other()
    for share in shares:
        share.keep_other(alone=True)
    file.start(rows[index] for index in sorted(rows))
    for share in shares:
        share.path.unlink(missing_ok=True)
        share.sidecar.unlink(missing_ok=True)
    return rows, damaged
