"""Pictures inside Parquet files, as Hugging Face data sets hold them: a column of {bytes, path}.

Such files hold hundreds of megabytes of pictures in one compressed page, of which a single one cannot be read. So a
row group is read once, one column at a time, and its pictures are laid out in a temporary file, from which they are
read in any order. Nothing is fetched from anywhere.
"""
import bisect
import hashlib
import os
import tempfile
import threading
import types
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3dn_plugin.errors import DataError, DependencyError
from k3dn_plugin.files import storage_error

KEPT = 2  # row groups of a column that stay laid out: scenes are loaded by two threads
_ONE_AT_A_TIME = threading.Lock()


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


class _Pictures:
    """Pictures one after the other in a temporary file, which is gone with this object."""

    def __init__(self) -> None:
        self.ends = [0]
        self._file = tempfile.TemporaryFile(prefix="k3dn_")

    def add(self, content: bytes) -> None:
        """Add a picture at the end."""
        try:
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise storage_error(Path(tempfile.gettempdir()) / "pictures of a Parquet file", error) from error
        self.ends.append(self.ends[-1] + len(content))

    def read(self, number: int) -> bytes:
        """Return a picture."""
        self._file.seek(self.ends[number])
        return self._file.read(self.ends[number + 1] - self.ends[number])


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
        self._laid_out: OrderedDict[int, _Pictures] = OrderedDict()
        self._hashes: dict[int, str] = {}
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
            StorageError: the folder for temporary files is full.
        """
        group = bisect.bisect_right(self._starts, row) - 1
        with self._lock:
            if group not in self._laid_out:
                while len(self._laid_out) >= KEPT:
                    self._laid_out.popitem(last=False)
                with _ONE_AT_A_TIME:
                    self._laid_out[group] = self._lay_out(group)
            content = self._laid_out[group].read(row - self._starts[group])
        if not content:
            raise DataError(f"{self.shard}: row {row} of {self.column!r} holds no picture (null). The file was written "
                            "without its pictures: download the data set's own Parquet files")
        self._hashes[row] = hashlib.sha256(content).hexdigest()
        return content

    def sha256(self, row: int) -> str:
        """Return the hash of one picture's file content."""
        if row not in self._hashes:
            self.read(row)
        return self._hashes[row]

    def _lay_out(self, group: int) -> "_Pictures":
        """Write the pictures of one row group to a temporary file."""
        pictures = _Pictures()
        try:
            batches = self._open().iter_batches(batch_size=1, row_groups=[group], columns=[f"{self.column}.bytes"])
            for batch in batches:
                pictures.add((batch.column(0)[0].as_py() or {}).get("bytes") or b"")
        except (OSError, ValueError) as error:  # pyarrow's errors are of these
            raise DataError(f"{self.shard}: row {self._starts[group] + len(pictures.ends) - 1} of {self.column!r} "
                            f"cannot be read ({_first(error)}): the file is damaged. Download it again") from None
        del batches
        return pictures

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
class ParquetImage(os.PathLike[str]):
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
