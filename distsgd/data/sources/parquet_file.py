"""Parquet files, decoded a bounded batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.data.guard.parquet import rows_at_once
from distsgd.data.kinds import is_text
from distsgd.data.sources.paths import check_unchanged, file_stamp
from distsgd.data.sources.source import arrow_errors
from distsgd.errors import DataError

# Footers beyond these are forged or not meant for this program.
_THRIFT_LIMITS = {
    "thrift_string_size_limit": 64 << 20,
    "thrift_container_size_limit": 4 << 20,
    "schema_depth_limit": 32,
}


class ParquetSource:
    """One Parquet file, read a bounded batch at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.files = (path,)
        self._stamp = file_stamp(path)
        self.num_bytes = self._stamp[0]
        _check_magic(path, self.num_bytes)
        with arrow_errors(self.name), self._open(()) as file:
            self.schema: pa.Schema = file.schema_arrow
            self.num_rows: int = file.metadata.num_rows
        # For columns that were read before: rows of each row group to decode at once.
        self._rows_at_once: dict[tuple[str, ...], list[int]] = {}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, decoded in batches of about 16 MiB."""
        num_rows = 0
        with arrow_errors(self.name), self._open(columns) as file:
            known = self._rows_at_once.setdefault(tuple(columns), [])
            unknown = rows_at_once(self.path, file, columns, first_group=len(known))
            for group in range(file.metadata.num_row_groups):
                if group == len(known):
                    known.append(next(unknown))
                at_once = known[group]
                for batch in file.iter_batches(at_once, row_groups=[group], columns=list(columns)):
                    num_rows += batch.num_rows
                    yield batch
        if num_rows != self.num_rows:
            damage = "the file is damaged, write it again"
            reason = f"holds {num_rows} rows but says {self.num_rows}; {damage}"
            raise DataError(self.path, reason)

    def check_unchanged(self) -> None:
        """Raise DataError when the file has another size or time of change than when opened."""
        check_unchanged(self.path, self._stamp)

    def _open(self, columns: Sequence[str]) -> Any:
        # Text comes as a dictionary: a page that repeats one long text a million times then stays
        # one text.
        texts = [name for name in columns if is_text(self.schema.field(name).type)]
        return pq.ParquetFile(
            self.path,
            read_dictionary=texts,
            # Streaming: without these, pyarrow holds the compressed columns of whole row groups.
            pre_buffer=False,
            buffer_size=max(4 << 10, min(1 << 20, (32 << 20) // max(len(columns), 1))),
            page_checksum_verification=True,
            arrow_extensions_enabled=False,
            **_THRIFT_LIMITS,
        )


def _check_magic(path: Path, num_bytes: int) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(max(num_bytes - 4, 0))
            tail = file.read(4)
    except OSError as error:
        raise DataError(
            path, f"cannot be read ({error.strerror}); check its permissions"
        ) from error
    if num_bytes == 0:
        raise DataError(path, "is empty; write it again")
    if b"PARE" in {head, tail}:
        raise DataError(
            path, "is an encrypted Parquet file, which is not supported; decrypt it first"
        )
    if head != b"PAR1":
        raise DataError(
            path,
            f"is not a Parquet file (it begins with {head!r}), nor of another format that is known"
            " (Arrow, IDX; CSV by its name, .csv, .tsv or .csv.gz); rename or convert it",
        )
    if tail != b"PAR1" or num_bytes < 12:
        raise DataError(
            path, "is a Parquet file cut short (its end is missing); copy or write it again"
        )
