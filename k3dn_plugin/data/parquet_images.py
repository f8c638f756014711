"""Pictures inside Parquet files, as Hugging Face data sets hold them: a column of {bytes, path}.

A shard is read from front to back, as it is asked; what was just passed is kept, because scenes are loaded by two
threads. Nothing is fetched from anywhere.
"""
import hashlib
import os
import threading
import types
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3dn_plugin.errors import DataError, DependencyError

KEPT = 6  # pictures a column


def import_parquet() -> types.ModuleType:
    """Return pyarrow's Parquet reader.

    Raises:
        DependencyError: it is not installed, or broken.
    """
    try:
        import pyarrow.parquet  # optional and heavy
    except ImportError as error:
        raise DependencyError(f"Parquet files need pyarrow ({error}); install it with: pip install "
                              "'k3dn_plugin[parquet]'") from None
    return pyarrow.parquet


@dataclass
class ParquetColumn:
    """The pictures of one column of one shard.

    Attributes:
        shard: the file. column: its name, such as "source".
        rows: how many pictures it has.
        names: the file name that each picture had; None where the shard has none.

    Raises:
        DataError: the shard is damaged, or has no such column of pictures.
    """

    shard: Path
    column: str
    rows: int = 0
    names: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._passed: OrderedDict[int, bytes] = OrderedDict()
        self._hashes: dict[int, str] = {}
        self._batches: Iterator[Any] | None = None
        self._next = 0
        file = self._open()
        columns = {file.schema_arrow.field(i).name: file.schema_arrow.field(i).type for i in
                   range(len(file.schema_arrow))}
        if self.column not in columns:
            raise DataError(f"{self.shard}: expected a column {self.column!r} of pictures, found "
                            f"{', '.join(columns) or 'none'}")
        parts = {columns[self.column].field(i).name for i in range(getattr(columns[self.column], "num_fields", 0))}
        if "bytes" not in parts:
            raise DataError(f"{self.shard}: its column {self.column!r} is of {columns[self.column]}; expected pictures "
                            "as {bytes, path}. Download the data set's Parquet files again")
        self.rows = file.metadata.num_rows
        starts = [0]
        for group in range(file.metadata.num_row_groups):
            starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        self._starts = starts
        self.names = self._read_names(file) if "path" in parts else [None] * self.rows

    def read(self, row: int) -> bytes:
        """Return the file content of one picture.

        Raises:
            DataError: the shard is damaged, or holds no picture there.
        """
        with self._lock:
            if row not in self._passed:
                try:
                    self._advance(row)
                except (OSError, ValueError, StopIteration) as error:  # pyarrow's errors are of these
                    self._batches = None
                    raise DataError(f"{self.shard}: row {row} of {self.column!r} cannot be read ({_first(error)}): the "
                                    "file is damaged. Download it again") from None
            content = self._passed[row]
            if not content:
                raise DataError(f"{self.shard}: row {row} of {self.column!r} holds no picture (null). The file was "
                                "written without its pictures: download the data set's own Parquet files")
            self._hashes[row] = hashlib.sha256(content).hexdigest()
            return content

    def sha256(self, row: int) -> str:
        """Return the hash of one picture's file content."""
        if row not in self._hashes:
            self.read(row)
        return self._hashes[row]

    def _advance(self, row: int) -> None:
        if self._batches is None or row < self._next:
            group = max(i for i, start in enumerate(self._starts[:-1]) if start <= row)
            groups = list(range(group, len(self._starts) - 1))
            self._batches = self._open().iter_batches(batch_size=1, row_groups=groups, columns=[f"{self.column}.bytes"])
            self._next = self._starts[group]
        while self._next <= row:
            picture = next(self._batches).column(0)[0].as_py() or {}
            self._passed[self._next] = picture.get("bytes") or b""
            self._next += 1
            while len(self._passed) > KEPT:
                self._passed.popitem(last=False)

    def _read_names(self, file: Any) -> list[str | None]:
        try:
            paths = file.read(columns=[f"{self.column}.path"]).column(0).to_pylist()
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None
        return [(entry or {}).get("path") for entry in paths]

    def _open(self) -> Any:
        parquet = import_parquet()
        try:
            return parquet.ParquetFile(self.shard, buffer_size=1 << 20, pre_buffer=False)
        except FileNotFoundError:
            raise DataError(f"there is no file {self.shard}") from None
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.shard}: not a whole Parquet file ({_first(error)}): cut off or damaged. Download it "
                         "again")


@dataclass(frozen=True)
class ParquetImage(os.PathLike):
    """One picture in a shard; stands where the path of a picture does."""

    column: ParquetColumn = field(compare=False)
    place: str
    row: int

    def read_bytes(self) -> bytes:
        """Return the file content of the picture."""
        return self.column.read(self.row)

    def sha256(self) -> str:
        """Return the hash of the picture's file content."""
        return self.column.sha256(self.row)

    def __fspath__(self) -> str:
        return f"{self.place}/{self.row}"

    def __str__(self) -> str:
        return f"{self.column.shard} (row {self.row}, {self.column.column})"


def image_of(column: ParquetColumn, row: int) -> ParquetImage:
    """Return one picture of a column."""
    return ParquetImage(column, f"{column.shard}/{column.column}", row)


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
